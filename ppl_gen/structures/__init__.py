"""What models are made of: parameters, the EM protocol and the program, one structure a file."""
