"""What an application may do on a topic, and how its messages are delivered: ``/api/v1/bindings``."""

from collections.abc import Iterator

from psubd.errors import BadBody, BadParameter, InUse, NotFound, StorageTimeout, StorageUnavailable, TopicMissing, VersionMismatch
from psubd.fields import application_id, topic_id
from psubd.interfaces import IGate, IRegistrar, Route
from psubd.manager.doc import ADMIN, IF_MATCH, NO_CONTENT, Doc, Parameter, Reply
from psubd.manager.forms import ApplicationId, BindingForm, TopicId
from psubd.manager.guard import Guard
from psubd.manager.listing import PAGING, Key, Page, filters
from psubd.manager.records import Records
from psubd.manager.views import BindingView
from psubd.manager.visit import Visit, answer, no_content
from psubd.model import Answer, Application, Binding, Topic

TAG = "bindings"
LIST, ONE = "/api/v1/bindings", "/api/v1/bindings/{application}/{topic}"


class BoundApplications:
    def __init__(self, guard: Guard, registrar: IRegistrar, records: Records, gate: IGate) -> None:
        self._guard, self._registrar, self._records, self._gate = guard, registrar, records, gate

    def routes(self) -> list[Route]:
        one = Reply("The binding.", BindingView, headers=("etag",))
        put = Doc(
            TAG,
            "Bind an application to a topic; all settings are replaced, what is absent is the default",
            {201: Reply("Made.", BindingView, headers=("etag", "location")), 200: Reply("Changed.", BindingView, headers=("etag",))},
            ADMIN,
            BindingForm,
            (IF_MATCH,),
            (NotFound, BadBody, InUse, TopicMissing, VersionMismatch, StorageUnavailable, StorageTimeout),
            conditional=True,
        )
        delete = Doc(
            TAG,
            "Revoke a binding; the application's cursors on the topic are forgotten",
            {204: NO_CONTENT},
            ADMIN,
            parameters=(IF_MATCH,),
            refusals=(NotFound, VersionMismatch, StorageUnavailable, StorageTimeout),
            conditional=True,
        )
        listing = Doc(
            TAG,
            "The bindings, by application and topic",
            {200: Reply("A page of bindings.", Page[BindingView])},
            parameters=(
                Parameter("application", ApplicationId, "Only this application's."),
                Parameter("topic", TopicId, "Only this topic's."),
                *PAGING,
            ),
        )
        return [
            self._guard.route("PUT", ONE, self.put, "putBinding", put),
            self._guard.route("GET", ONE, self.show, "getBinding", Doc(TAG, "One binding", {200: one}, refusals=(NotFound,))),
            self._guard.route("DELETE", ONE, self.delete, "deleteBinding", delete),
            self._guard.route("GET", LIST, self.index, "listBindings", listing),
        ]

    async def put(self, visit: Visit, application: str, topic: str) -> Answer:
        form: BindingForm = visit.form
        self._records.get(Application, application)
        self._records.get(Topic, topic)
        present = self._find(application, topic)
        wanted = Binding(
            application=application,
            topic=topic,
            serial=0,
            pub=form.pub,
            sub=form.sub,
            ack=form.ack,
            ack_timeout_ms=form.ack_timeout_ms,
            start=form.start,
            replay=form.replay,
            ordered=form.ordered,
            max_attempts=form.max_attempts,
            dead_letter=form.dead_letter,
            max_in_flight=form.max_in_flight,
            backoff=form.backoff.value(),
            rate=None if form.rate is None else form.rate.value(),
        )
        if_match = visit.if_match(None if present is None else present.version)
        binding, made = await self._registrar.put_binding(wanted, visit.actor, if_match)
        location = f"{LIST}/{application}/{topic}" if made else None
        return answer(BindingView.of(binding), 201 if made else 200, version=binding.version, location=location)

    async def show(self, visit: Visit, application: str, topic: str) -> Answer:
        binding = self._get(application, topic)
        return answer(BindingView.of(binding), version=binding.version)

    async def delete(self, visit: Visit, application: str, topic: str) -> Answer:
        binding = self._get(application, topic)
        await self._registrar.delete_binding(application, topic, visit.actor, visit.if_match(binding.version))
        return no_content()

    async def index(self, visit: Visit) -> Answer:
        application, topic = visit.query.get("application"), visit.query.get("topic")
        check_filters(application, topic)
        found = {(binding.application, binding.topic): binding for binding in self._matching(application, topic)}
        keys, following = visit.page(sorted(found), f"{TAG}?{filters(application=application, topic=topic)}")
        return answer(Page([BindingView.of(found[pair(key)]) for key in keys], following))

    def _matching(self, application: str | None, topic: str | None) -> Iterator[Binding]:
        """The bindings that the filters let through. By topic alone they come from the gate's index, so that not all are read."""
        if application is not None:
            items = self._records.bindings(application).items
            yield from (binding for name, binding in items.items() if topic in (None, name))
        elif topic is not None:
            yield from self._gate.bindings_of(topic).values()
        else:
            for name in self._records.bound():
                yield from self._records.bindings(name).items.values()

    def _find(self, application: str, topic: str) -> Binding | None:
        return self._records.bindings(application).items.get(topic)

    def _get(self, application: str, topic: str) -> Binding:
        """:raises NotFound:"""
        found = self._find(application, topic)
        if found is None:
            raise NotFound(f"application {application[:64]!r} is not bound to topic {topic[:200]!r}")
        return found


def pair(key: Key) -> tuple[str, str]:
    """A list's key as application and topic."""
    application, topic = key
    return application, topic


def check_filters(application: str | None, topic: str | None = None) -> None:
    """:raises BadParameter: a filter that no id can equal."""
    if application is not None and not application_id(application):
        raise BadParameter("application: not an application id")
    if topic is not None and not topic_id(topic):
        raise BadParameter("topic: not a topic id")
