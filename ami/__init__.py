"""Makes the machine image that jobs run on, on EC2: `python -m ami`."""
