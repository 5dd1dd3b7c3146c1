"""The server kit: code that all servers of this project share. It imports no other package of the project."""
