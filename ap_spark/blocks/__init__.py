"""The graph as blocks of rows in files beside the executors, and the passes over them.

    edges ──► one shuffle by row ──► block files ──► passes: iterate, assign, refine, degrees, histogram, components

`parcels`    edges packed for the shuffle, many in one row
`entries`    from edges to the entries of rows, by the rules of the input: arrays in, arrays out
`build`      the task that writes the file of a block from the edges it gets, and returns a handle to it
`files`      a block in a memory-mapped file
`store`      the blocks of a graph, as the driver sees them: writes them, runs passes, rebuilds lost ones
`kernel`     one iteration on one block: arrays in, arrays out
`objective`  the passes of polishing and of the bound on one block, in whole units: arrays in, arrays out
`passes`     what other passes compute on one block: arrays in, arrays out
`compiling`  when numba takes the place of numpy: with `compiled_kernel` and `compiled_objective`
`hashing`    Spark's hash function on arrays, for fingerprints and jitter
"""
