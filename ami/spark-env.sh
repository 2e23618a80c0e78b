# Spark runs a task a core; a BLAS with threads of its own would have them fight over the cores.
OPENBLAS_NUM_THREADS=1
