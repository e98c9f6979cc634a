"""`deployr doctor`: what can be checked of a site before go-live."""
