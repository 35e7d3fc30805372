"""The words of the command line, one file for what belongs together."""
