"""The EC2 launcher in the sandbox: everything is real but the hardware."""
