"""`python -m raydual`."""

from raydual.cli import main

if __name__ == "__main__":
    main()
