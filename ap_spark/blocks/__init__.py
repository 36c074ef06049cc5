"""The graph as blocks of rows in files beside the executors, and the passes over them.

    edges ──► one shuffle by row ──► block files ──► passes: iterate, assign, refine, degrees, bins, components

`send`      edges on their way to the blocks of their rows, many together
`build`     what a task makes of those that reach it: the file of its block, and a handle to it
`assemble`  what a task makes of the edges of its rows: arrays in, arrays out
`files`     a block in a memory-mapped file
`store`     the blocks of a graph, as the driver sees them: the shuffle, where the files are, one pass over all of them
`passes`    what a pass does on one block: arrays in, arrays out
`graph`     from similarities to the graph in blocks
"""
