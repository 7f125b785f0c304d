"""Every key of a config in Markdown, a table a group: docs/keys.md.

python -m utils.config > docs/keys.md
"""

from utils.config.listing import keys_page

if __name__ == "__main__":
    print(keys_page(), end="")
