"""The same as gen_image_real_script.py, under its other name."""

from gen_image_real_script import main

from utils.errors import run_cli

if __name__ == "__main__":
    run_cli(main)
