"""Arrays that a loop passes to the kernels it calls, without counting references each time.

A kernel counts a reference to each array that it is given, up and down, by locked instructions: 5 ns each on an EPYC,
which is as long as the arithmetic of four features. The counting is left out for a borrowed view.
"""

from __future__ import annotations

from typing import Any

from numba.extending import intrinsic


@intrinsic
def borrowed(typing_context: Any, array: Any) -> Any:
    """A view of ``array`` without a reference to it, for use in kernels, while the array itself stays in reach."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        view = context.make_array(array)(context, builder, arguments[0])
        view.meminfo = view.meminfo.type(None)
        return view._getvalue()

    return array(array), generate
