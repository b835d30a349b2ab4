"""``python -m epifoundation_cli``, where the command is not on the path."""

from .main import main

main()
