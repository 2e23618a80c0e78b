"""Launches on EC2: `launcher` has the settings and relaunches what was lost, `launch` is one instance from its start to
its end, `launches` is what S3 keeps of them all."""
