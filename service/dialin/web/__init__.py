"""The web page. It is rendered by the server, and a small script keeps it up to date."""
