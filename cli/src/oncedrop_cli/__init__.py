"""The client for the command line. It knows the server by its HTTP interface only."""
