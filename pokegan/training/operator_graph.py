"""A function of tensors as the operators that it runs: repeated without the Python around them.

Under autograd a step goes through modules, wrappers and the tape of autograd between one operator
and the next. `record` runs it once and notes what reaches the kernels, backward passes included;
what it returns calls the same kernels in the same order, and so makes the same bits.
"""

import operator
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

aten = torch.ops.aten
_CONSTANTS = (int, float, bool, str, torch.dtype, torch.device, torch.layout, torch.memory_format)

# A tensor's place in its storage: the offset, the shape and the strides.
Where = tuple[torch.dtype, int, tuple[int, ...], tuple[int, ...]]


def record(function: Callable[..., Any], inputs: Sequence[Tensor]) -> tuple[Any, "Repeat | str"]:
    """Run `function(*inputs)`; return its result, and what repeats it on other inputs.

    Tensors that the function finds elsewhere, such as weights, are read and written where they
    are, again every time. All else stands still: numbers, branches, values that the host made, and
    which tensors these are. So do shapes, strides, offsets and dtypes of the inputs, which a caller
    sees to.

    Args:
        function: its result is made of lists, tuples and dicts of tensors and None.
        inputs: no two share memory.

    Returns:
        The result, and a `Repeat`; or in its place why there is none, in words: what the function
        does depends on a tensor's value, or is more than operators on tensors.
    """
    recording = _Recording(inputs)
    with _HostReads(recording), recording:
        result = function(*inputs)
    return result, recording.finished(result)


def always_run(operator: torch._ops.OpOverload) -> None:
    """Let recordings have `operator` even where nobody reads its results."""
    _always.add(operator)


class Repeat:
    """Repeats what was recorded.

    Args:
        graph: the operators.
        found: what it reads as attributes: the tensors that were not among the inputs.

    Attributes:
        source: the same in Python, to be read.
    """

    def __init__(self, graph: fx.Graph, found: Mapping[str, Tensor]) -> None:
        code = graph.python_code("self")
        self.source: str = code.src
        self._found = types.SimpleNamespace(**found)
        scope = dict(code.globals)
        exec(compile(self.source, "<recorded step>", "exec"), scope)
        self._run: Callable[..., Any] = scope["forward"]

    def __call__(self, *inputs: Tensor) -> Any:
        """Run the operators on `inputs`; the result has no gradients."""
        with torch._C._AutoDispatchBelowAutograd():
            return self._run(self._found, *inputs)


class _Recording(TorchDispatchMode):
    """Writes the operators that run while it is entered into a graph.

    A tensor is known by its place in memory, because autograd gives back what it saved as another
    tensor of the same memory.
    """

    def __init__(self, inputs: Sequence[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's
        self.graph = fx.Graph()
        self.constants: dict[str, Tensor] = {}
        self.refusal: str | None = None
        self.made: dict[int, dict[Where, fx.Node]] = {}  # by storage: what operators made
        self.found: dict[int, dict[Where, fx.Node]] = {}  # what was there before them
        self.kept: set[fx.Node] = set()  # to be run, whoever reads the result
        self.alive: list[StorageWeakRef] = []  # so that no other storage gets the same key
        for place, tensor in enumerate(inputs):
            self._note(tensor, self.graph.placeholder(f"input_{place}"))

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """No compiler traces a recording, so PyTorch need not import it (2 s) to pass this by."""
        return False

    def __torch_dispatch__(
        self,
        func: torch._ops.OpOverload,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run the operator, and note it."""
        kwargs = kwargs or {}
        if self.refusal is not None:
            return func(*args, **kwargs)
        if func is aten.lift_fresh.default:  # a number that became a tensor: new every time
            self._note(args[0], self._call(aten.clone.default, (self._constant(args[0].clone()),)))
            return func(*args, **kwargs)
        given = self._nodes(args), self._nodes(kwargs)
        result = func(*args, **kwargs)
        if (reason := _refusal(func, args, result)) is not None:
            self.refuse(reason)
        if torch.Tag.inplace_view in func.tags:  # of the same memory, which is what we go by
            if func not in _OTHER_VIEWS or _key(args[0]) not in self.made:
                self.refuse(f"{func} changes what a tensor is")
        elif self.refusal is None:
            needed = _does_something(func)
            if needed or not self._is_nothing_new(result):
                node = self._call(func, *given)
                if needed:
                    self.kept.add(node)
                self._note_all(result, node)
        return result

    def refuse(self, reason: str) -> None:
        """Let there be no repeat, for this reason if there is none yet."""
        self.refusal = self.refusal or reason

    def finished(self, result: Any) -> Repeat | str:
        """Return what was recorded, without operators whose results nobody reads; or why not."""
        self.kept.add(self.graph.output(self._nodes(result)))
        if any(map(self._is_fleeting, self.found)):
            self.refuse("a tensor is made by other ways than operators")
        if self.refusal is not None:
            return self.refusal
        for node in reversed(self.graph.nodes):
            if not node.users and node not in self.kept and node.op != "placeholder":
                self.graph.erase_node(node)
        return Repeat(self.graph, self.constants)

    def _is_fleeting(self, key: int) -> bool:
        """Whether nobody else has this storage any more, so that it was new in what was run."""
        return _holders(key) <= len(self.found[key]) + _WITHOUT_TENSORS

    def _call(self, func: Any, args: tuple[Any, ...], kwargs: Any = None) -> fx.Node:
        return self.graph.call_function(func, args, kwargs)

    def _is_nothing_new(self, result: Any) -> bool:
        """Whether it is known already: the same place again, or a view of what was found."""
        leaves = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        return all(
            _key(leaf) in self.found or _where(leaf) in self.made.get(_key(leaf), ())
            for leaf in leaves
        )

    def _note_all(self, result: Any, node: fx.Node) -> None:
        if isinstance(result, Tensor):
            if _key(result) not in self.found:
                self._note(result, node)
        elif isinstance(result, (list, tuple)):
            for place, one in enumerate(result):
                if one is not None:
                    self._note_all(one, self._call(operator.getitem, (node, place)))

    def _note(self, tensor: Tensor, node: fx.Node) -> None:
        key = _key(tensor)
        if key not in self.made:
            self.made[key] = {}
            storage = tensor.untyped_storage()
            self.alive.append(StorageWeakRef(storage))  # type: ignore[no-untyped-call]  # torch's
        self.made[key].setdefault(_where(tensor), node)

    def _nodes(self, values: Any) -> Any:
        return tree_map(self._node, values)

    def _node(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return self._tensor(value)
        if value is not None and not isinstance(value, _CONSTANTS):
            self.refuse(f"an operator takes a {type(value).__name__}")
        return value

    def _tensor(self, tensor: Tensor) -> fx.Node:
        key, where = _key(tensor), _where(tensor)
        views = self.made.get(key)
        if views is None:
            nodes = self.found.setdefault(key, {})
            if where not in nodes:
                nodes[where] = self._constant(tensor.detach())
            return nodes[where]
        if where not in views:
            dtype, offset, shape, strides = where
            base = next((node for (own, *_), node in views.items() if own == dtype), None)
            if base is None:
                self.refuse("memory is read as another dtype")
                base = next(iter(views.values()))
            views[where] = self._call(aten.as_strided.default, (base, shape, strides, offset))
        return views[where]

    def _constant(self, value: Tensor) -> fx.Node:
        name = f"found_{len(self.constants)}"
        self.constants[name] = value
        return self.graph.get_attr(name)


class _HostReads(TorchFunctionMode):
    """Notices what reads a tensor's memory without an operator."""

    def __init__(self, recording: _Recording) -> None:
        super().__init__()
        self.recording = recording

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run the function."""
        if func in _READING:
            self.recording.refuse(f"{func.__name__}() gives values to the host")
        return func(*args, **(kwargs or {}))


_READING = (Tensor.tolist, Tensor.numpy, Tensor.__array__)
_OTHER_VIEWS = (
    aten.squeeze_.default,
    aten.squeeze_.dim,
    aten.squeeze_.dims,
    aten.unsqueeze_.default,
    aten.transpose_.default,
    aten.t_.default,
    aten.detach_.default,
)
_always = {aten.native_batch_norm.default}  # writes running statistics, and does not say so


def _refusal(func: torch._ops.OpOverload, args: tuple[Any, ...], result: Any) -> str | None:
    """Return why this operator cannot be repeated."""
    if func is aten.index.Tensor:
        by_values = any(one is not None and one.dtype in _MASKS for one in args[1])
    else:
        by_values = torch.Tag.dynamic_output_shape in func.tags
    if by_values:
        return f"the shape of what {func} gives depends on values"
    others = [leaf for leaf in tree_leaves(result) if not isinstance(leaf, Tensor | None)]
    if others and any(isinstance(leaf, Tensor) for leaf in tree_leaves(args)):
        return f"{func} gives a {type(others[0]).__name__} to the host"
    return None


_MASKS = (torch.bool, torch.uint8)


def _does_something(func: torch._ops.OpOverload) -> bool:
    """Whether an operator is to run even if nobody reads its results."""
    random = torch.Tag.nondeterministic_seeded in func.tags
    return func._schema.is_mutable or random or not func._schema.returns or func in _always


def _key(tensor: Tensor) -> int:
    """Return what names a storage as long as that, or a weak reference to it, lives."""
    key: int = tensor.untyped_storage()._cdata
    return key


def _where(tensor: Tensor) -> Where:
    shape, strides = tuple(tensor.shape), tuple(tensor.stride())
    return tensor.dtype, int(tensor.storage_offset()), shape, strides


def _holders(key: int) -> int:
    """Return how many tensors and other objects of torch's have a storage."""
    count: int = torch._C._storage_Use_Count(key)
    return count


_lone = torch.empty(1)
_WITHOUT_TENSORS = _holders(_key(_lone)) - 1  # what has a storage by being asked for its key
