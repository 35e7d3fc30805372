"""`python -m lisa …` is the same as `lisa …`."""

from lisa.cli import main

if __name__ == "__main__":
    main()
