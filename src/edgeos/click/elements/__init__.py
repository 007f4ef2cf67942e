"""The element classes, one module for each group; `edgeos.click.registry` finds them."""
