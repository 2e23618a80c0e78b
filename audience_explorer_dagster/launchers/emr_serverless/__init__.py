"""Launches on EMR Serverless: `settings` is what can be set, `launcher` the resource, `launch` one job run from its
start to its end, `outcome` what is wrong with one, `pipes` what dagster-aws's client needs of it."""
