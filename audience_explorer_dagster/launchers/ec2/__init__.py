"""Launches on EC2: `settings` is what can be set, `launcher` the resource, which relaunches what was lost, `launch` one
instance from its start to its end, `outcome` what is wrong with one."""
