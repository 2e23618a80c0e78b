"""EMR Serverless: the program of its driver, and the permissions of its roles."""
