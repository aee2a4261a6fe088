"""Does a model say the same when it is split?"""
