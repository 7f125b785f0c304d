"""Other trainers' configs, taken as they are: their keys become this project's, or are said to do nothing."""
