"""A fuzz test of every reader that takes a file from elsewhere. `scripts/fuzz` runs it long, the suite a share of it.

bytewise, values, tensors, pickles, tars, pictures    what is done to a valid file
seeds       valid files, made as the product makes them
readers     who reads them: a name, valid files, mutations, and the product's own function
watch       what one input costs, and whether anything outside its folder is touched
campaign    numbered inputs in child processes, and what was found

Input number N of seed S is the same on every machine with the same libraries.
"""
