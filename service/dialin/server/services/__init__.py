"""What the server does with studies, trials and files, for the HTTP API and the page alike."""
