"""How HTTP comes in: the server and its protocol."""
