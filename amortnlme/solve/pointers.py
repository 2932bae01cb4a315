"""Compiled functions handed to drivers as bare addresses.

Numba looks a dispatcher that arrives as an argument up by its signature, twice per argument and call. With
signatures as long as those of the drivers that takes longer than solving a handful of subjects.
"""

from __future__ import annotations

from typing import Any

from numba import types


class Pointer:
    """A compiled function whose address is looked up once.

    Parameters
    ----------
    dispatcher : numba dispatcher
        Compiled for one signature.
    signature : numba signature
        The same.
    """

    __slots__ = ("_address", "_dispatcher", "_numba_type_")

    def __init__(self, dispatcher: Any, signature: Any) -> None:
        result = dispatcher.get_compile_result(signature)
        self._address = result.library.get_pointer_to_function(result.fndesc.llvm_cfunc_wrapper_name)
        # Keeps the machine code alive.
        self._dispatcher = dispatcher
        # Read by Numba's `typeof`.
        self._numba_type_ = types.FunctionType(signature)

    def __wrapper_address__(self) -> int:
        """Address of the function; see numba.types.WrapperAddressProtocol."""
        return self._address
