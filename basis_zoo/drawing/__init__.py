"""How figures look: the colour of each arm in `styles`, titles and legends in `layout`.

Needs matplotlib; only figures import it.
"""
