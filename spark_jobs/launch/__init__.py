"""What a launch says on S3, both ends of it: the agent on the machine writes, the launcher reads.

A launch is one machine's life: it starts, runs jobs, and ends. Its folder:

    description.json        what to do, written before the machine starts: `code` and `code_sha256` (the archive of
                            `spark_jobs` and its digest), `max_runtime` (seconds), `context` (the jobs' Pipes context);
                            and for people `launched` (by which launcher, on what)
    lease                   renewed by the launcher as long as it waits for the launch
    messages/000001.jsonl   … what the jobs report over the Pipes protocol, and `{"boot": EVENT}` of the agent's own
    log/000001.txt          … what the jobs print
    status.json             last: how the launch ended, and how many messages and objects it wrote

An object of a stream is never written again with other content, and only after all before it are stored; the status
only after all objects. So a reader that has read the status, and then as many objects and messages as that counts, has
everything, in order and once. If it has fewer, something is missing, and it knows.

Nothing here needs Dagster. It travels with the jobs' code: in the archive of EC2's launches, and in that of clusters.
"""
