"""`python -m mishards` is the command `mishards`."""

from mishards.cli.main import main

if __name__ == "__main__":
    main()
