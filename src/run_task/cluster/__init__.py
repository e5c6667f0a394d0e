"""One pipeline over many processes and machines."""
