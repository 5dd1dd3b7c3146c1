"""The server kit: what every server of this project does alike. It imports nothing else of the project."""
