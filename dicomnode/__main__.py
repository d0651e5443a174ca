"""`python -m dicomnode` and the command `dicomnode`."""

from dicomnode.cli.root import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
