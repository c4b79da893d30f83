"""
The law: what a level demands, which rule names it, and what that means for the facts of one session. Pure.
"""
