"""The chain of the settings' middleware for async views. Django's loader makes the one for sync views.

Django's loader would give the same results, with two differences:

- Django crosses the border between sync and async through asgiref, which needs asyncio. Here Trio does it.
- Consecutive plain :class:`~django.utils.deprecation.MiddlewareMixin` middlewares form one
  *section*; all of Django's are plain. All their ``process_request`` run in one call to a thread, and all their
  ``process_response`` in another. These two calls also resolve the URL, call the other hooks and render.

A middleware that is only synchronous holds a thread for as long as the view takes, so that nothing would be gained by
an asynchronous chain inside it. Such a project has the synchronous chain alone.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import outcome
from asgiref.sync import iscoroutinefunction  # inspect's function fails for class-based views before Python 3.12
from django.conf import settings
from django.core.exceptions import MiddlewareNotUsed
from django.core.handlers import exception
from django.core.handlers.base import BaseHandler
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.utils.deprecation import MiddlewareMixin
from django.utils.module_loading import import_string

from .._threads.affinity import keep_thread
from .._threads.database import run_in_thread, visit_thread
from .._threads.neutral import middleware_is_neutral
from ..sync import async_to_sync
from .inline import are_djangos, methods_that_never_wait, response_never_waits

if TYPE_CHECKING:
    from .base import TrioHandler

AsyncHandler = Callable[[HttpRequest], Awaitable[HttpResponseBase]]
AsyncFunction = Callable[..., Awaitable[Any]]


@dataclass(slots=True)
class Hooks:
    """The hooks of middleware around the view, each list in the order of its calls."""

    neutral: bool = True  # none of them leaves anything on its thread
    view: list[Callable[..., Any]] = field(default_factory=list)
    template_response: list[Callable[..., Any]] = field(default_factory=list)
    exception: list[Callable[..., Any]] = field(default_factory=list)

    def add(self, middleware: object, adapt: Callable[[Any], Callable[..., Any]]) -> None:
        """Add the hooks of a middleware; to be called from the innermost middleware to the outermost."""
        if any(hasattr(middleware, name) for name in _HOOKS) and not middleware_is_neutral(middleware):
            self.neutral = False
        if hasattr(middleware, "process_view"):
            self.view.insert(0, adapt(middleware.process_view))
        if hasattr(middleware, "process_template_response"):
            self.template_response.append(adapt(middleware.process_template_response))
        if hasattr(middleware, "process_exception"):
            self.exception.append(adapt(middleware.process_exception))


_HOOKS = ("process_view", "process_template_response", "process_exception")


def all_are_neutral() -> bool:
    """Whether no middleware of the settings leaves anything on its thread."""
    return all(middleware_is_neutral(import_string(path)) for path in settings.MIDDLEWARE)


def all_can_be_async() -> bool:
    """Whether no middleware of the settings is synchronous only."""
    return all(getattr(import_string(path), "async_capable", False) for path in settings.MIDDLEWARE)


def load_async(handler: TrioHandler) -> Section:
    """The asynchronous chain: its outermost section, whose calls the handler makes."""
    hooks = Hooks()
    innermost = Section((), View(handler, hooks))
    section: Section | None = innermost
    outer: AsyncHandler = innermost.respond
    for path in reversed(settings.MIDDLEWARE):
        try:
            middleware = import_string(path)(outer)
        except MiddlewareNotUsed:  # Django has logged it
            continue
        hooks.add(middleware, lambda method: handler.adapt_method_mode(False, method))
        if _is_plain(middleware):
            section = section.within(middleware) if section else Section((middleware,), outer)
            outer = section.respond
        else:
            section = None
            outer = answering(middleware)
    return section or Section((), outer)


def _is_plain(middleware: object) -> bool:
    """Whether a middleware calls its steps by MiddlewareMixin alone."""
    kind: Any = type(middleware)
    return (
        isinstance(middleware, MiddlewareMixin)
        and kind.__call__ is MiddlewareMixin.__call__
        and kind.__acall__ is MiddlewareMixin.__acall__
        and not any(iscoroutinefunction(getattr(middleware, name, None)) for name in _STEPS)
    )


_STEPS = ("process_request", "process_response")


def answering(get_response: AsyncHandler) -> AsyncHandler:
    """Django's convert_exception_to_response for an async function."""

    @functools.wraps(get_response)
    async def respond(request: HttpRequest) -> HttpResponseBase:
        try:
            return await get_response(request)
        except Exception as error:
            return await run_in_thread(answer_to_exception, request, error)

    return respond


def answer_to_exception(request: HttpRequest, error: Exception) -> HttpResponseBase:
    """Django's answer to an exception that was raised in another thread."""
    try:
        raise error
    except Exception:  # Django looks for the traceback in sys.exc_info()
        return exception.response_for_exception(request, error)


def _answer(request: HttpRequest, error: Exception) -> HttpResponseBase:
    """Django's answer, for an exception that is being handled."""
    keep_thread()  # the project's own handlers of errors may make it
    response: HttpResponseBase = exception.response_for_exception(request, error)
    return response


class Pending(NamedTuple):
    """The async function that a section waits for, a view or the middleware inside, and its arguments."""

    function: AsyncFunction
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = {}
    callback: AsyncFunction | None = None


class Section:
    """Consecutive plain middlewares (`members`, the outermost first) and the view or middleware inside them."""

    def __init__(self, members: tuple[MiddlewareMixin, ...], inner: View | AsyncHandler) -> None:
        self._members = members
        self._inner = inner
        self.neutral = all(map(middleware_is_neutral, members))
        self._methods = methods_that_never_wait(members) if isinstance(inner, View) else None

    def within(self, middleware: MiddlewareMixin) -> Section:
        """This section, with one more middleware around it."""
        return Section((middleware, *self._members), self._inner)

    async def respond(self, request: HttpRequest) -> HttpResponseBase:
        """The ``get_response`` of the middleware around this section."""
        entered = await visit_thread(self.enter, request)
        if not isinstance(entered, Pending):
            return entered
        result = await self.proceed(request, entered)
        return await visit_thread(self.leave, request, entered, result)

    def enter(self, request: HttpRequest) -> HttpResponseBase | Pending:
        """On a thread: call everything before the async function; returns the response if there is none to await."""
        if not self.neutral:
            keep_thread()  # until the request ends, and so for leave() too
        for depth, middleware in enumerate(self._members):
            process_request = getattr(middleware, "process_request", None)
            if process_request is not None:
                try:
                    response = process_request(request)
                except Exception as error:
                    return self._climb(request, _answer(request, error), depth)
                if response:
                    return self._climb(request, response, depth + 1)
        found = self._inner.begin(request) if isinstance(self._inner, View) else Pending(self._inner)
        return found if isinstance(found, Pending) else self._climb(request, found, len(self._members))

    def never_waits(self) -> bool:
        """Whether the whole chain is Django's own and never waits, if there is nothing to store."""
        return self._methods is not None and are_djangos(self._methods)

    def enter_inline(self, request: HttpRequest) -> Pending | None:
        """As :meth:`enter`, on the Trio thread; None: a thread must do it, from the beginning."""
        try:
            for middleware in self._members:
                process_request = getattr(middleware, "process_request", None)
                if process_request is not None and process_request(request):
                    return None
            return self._inner.begin_inline(request) if isinstance(self._inner, View) else None
        except Exception:  # it is raised again on the thread
            return None

    async def proceed(self, request: HttpRequest, pending: Pending) -> outcome.Maybe[HttpResponseBase]:
        """On Trio: await the function that :meth:`enter` has returned."""
        try:
            return outcome.Value(await pending.function(request, *pending.args, **pending.kwargs))
        except Exception as error:
            return outcome.Error(error)

    def leave(
        self, request: HttpRequest, pending: Pending, result: outcome.Maybe[HttpResponseBase]
    ) -> HttpResponseBase:
        """On a thread: make the response from the result of :meth:`proceed`."""
        response = result.unwrap() if not isinstance(self._inner, View) else self._inner.end(request, pending, result)
        return self._climb(request, response, len(self._members))

    def leave_inline(self, request: HttpRequest, result: outcome.Maybe[HttpResponseBase]) -> HttpResponseBase | None:
        """As :meth:`leave`, on the Trio thread; None: a thread must do it, from the beginning."""
        response: HttpResponseBase | None = None
        try:
            if isinstance(result, outcome.Value) and response_never_waits(request, result.value):
                response = result.value
                for middleware in reversed(self._members):
                    process_response = getattr(middleware, "process_response", None)
                    if process_response is not None:
                        response = process_response(request, response)
        except Exception:  # it is raised again on the thread
            response = None
        return response

    def _climb(self, request: HttpRequest, response: HttpResponseBase, depth: int) -> HttpResponseBase:
        """Have the first `depth` members process a response, the innermost first."""
        for middleware in reversed(self._members[:depth]):
            process_response = getattr(middleware, "process_response", None)
            if process_response is not None:
                try:
                    response = process_response(request, response)
                except Exception as error:
                    response = _answer(request, error)
        return response


class View:
    """The innermost handler, on a thread: resolves the URL and calls the hooks and a sync view."""

    def __init__(self, handler: TrioHandler, hooks: Hooks) -> None:
        self._handler = handler
        self._hooks = hooks

    def begin(self, request: HttpRequest) -> HttpResponseBase | Pending:
        """Find the view; the response, unless the view is async."""
        if not self._hooks.neutral:
            keep_thread()
        try:
            callback, args, kwargs = self._handler.resolve_request(request)
            response = None
            for process_view in self._hooks.view:
                response = process_view(request, callback, args, kwargs)
                if response:
                    keep_thread()  # it may be the project's, by CSRF_FAILURE_VIEW
                    break
            if response is None:
                view = BaseHandler.make_view_atomic(self._handler, callback)
                if iscoroutinefunction(view):
                    return Pending(view, args, kwargs, callback)
                keep_thread()
                try:
                    response = view(request, *args, **kwargs)
                except Exception as error:
                    response = self._rescue(request, error)
            return self._complete(request, callback, response)
        except Exception as error:
            return _answer(request, error)

    def begin_inline(self, request: HttpRequest) -> Pending | None:
        """Find the view, on the Trio thread; None unless it is async and no hook has a response."""
        callback, args, kwargs = self._handler.resolve_request(request)
        if any(process_view(request, callback, args, kwargs) for process_view in self._hooks.view):
            return None
        view = BaseHandler.make_view_atomic(self._handler, callback)
        return Pending(view, args, kwargs, callback) if iscoroutinefunction(view) else None

    def end(self, request: HttpRequest, call: Pending, result: outcome.Maybe[HttpResponseBase]) -> HttpResponseBase:
        """The response of an async view, from its outcome."""
        try:
            try:
                response = result.unwrap()
            except Exception as error:
                response = self._rescue(request, error)
            return self._complete(request, call.callback, response)
        except Exception as error:
            return _answer(request, error)

    def _rescue(self, request: HttpRequest, error: Exception) -> HttpResponseBase:
        """The response of a process_exception hook; raises the exception if none has one."""
        for process_exception in self._hooks.exception:
            response: HttpResponseBase | None = process_exception(request, error)
            if response:
                return response
        raise error

    def _complete(
        self, request: HttpRequest, callback: Callable[..., Any] | None, response: HttpResponseBase
    ) -> HttpResponseBase:
        """Check and render the response of a view."""
        self._handler.check_response(response, callback)
        if not callable(getattr(response, "render", None)):
            return response
        keep_thread()  # templates call anything
        for process in self._hooks.template_response:
            response = process(request, response)
            kind = type(getattr(process, "__self__", process)).__name__
            self._handler.check_response(response, process, name=f"{kind}.process_template_response")
        try:
            render: Any = response.render  # type: ignore[attr-defined]
            response = async_to_sync(render)() if iscoroutinefunction(render) else render()
        except Exception as error:
            response = self._rescue(request, error)
        return response
