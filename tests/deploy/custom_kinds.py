"""Schemas of the custom kinds, of the fields that we use; anything else is an error."""

from typing import Annotated, Literal

import msgspec

_Count = Annotated[int, msgspec.Meta(ge=1)]
_Text = Annotated[str, msgspec.Meta(min_length=1)]
_Whole = Annotated[str, msgspec.Meta(pattern=r"^[1-9]\d*$")]  # KEDA's metadata are strings, numbers too
_Duration = Annotated[str, msgspec.Meta(pattern=r"^\d+(ms|[smhdwy])$")]


class _Strict(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    pass


class _Metadata(_Strict):
    name: Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]
    labels: dict[str, str] = {}


class _Named(_Strict):
    name: _Text


class _Key(_Strict):
    name: _Text
    key: _Text


# https://keda.sh/docs/latest/concepts/authentication/
class _SecretTarget(_Strict):
    parameter: Literal["connection", "host", "port", "userName", "password", "dbName", "sslmode"]
    name: _Text
    key: _Text


class _TriggerAuthenticationSpec(_Strict):
    secret_target_ref: Annotated[list[_SecretTarget], msgspec.Meta(min_length=1)]


class TriggerAuthentication(_Strict):
    api_version: Literal["keda.sh/v1alpha1"]
    kind: Literal["TriggerAuthentication"]
    metadata: _Metadata
    spec: _TriggerAuthenticationSpec


# https://keda.sh/docs/latest/scalers/postgresql/
class _PostgresTrigger(_Strict):
    query: _Text
    target_query_value: _Whole


class _Trigger(_Strict):
    type: Literal["postgresql"]
    metadata: _PostgresTrigger
    authentication_ref: _Named


# https://keda.sh/docs/latest/reference/scaledobject-spec/
class _ScaledObjectSpec(_Strict):
    scale_target_ref: _Named
    min_replica_count: Annotated[int, msgspec.Meta(ge=0)]
    max_replica_count: _Count
    polling_interval: _Count
    cooldown_period: _Count
    triggers: Annotated[list[_Trigger], msgspec.Meta(min_length=1)]


class ScaledObject(_Strict):
    api_version: Literal["keda.sh/v1alpha1"]
    kind: Literal["ScaledObject"]
    metadata: _Metadata
    spec: _ScaledObjectSpec


# https://prometheus-operator.dev/docs/api-reference/api/
class _Selector(_Strict):
    match_labels: dict[str, str]


class _Authorization(_Strict):
    credentials: _Key
    type: Literal["Bearer"] = "Bearer"


class _Endpoint(_Strict):
    port: _Text
    path: Annotated[str, msgspec.Meta(pattern="^/")]
    interval: _Duration
    authorization: _Authorization


class _ServiceMonitorSpec(_Strict):
    selector: _Selector
    endpoints: Annotated[list[_Endpoint], msgspec.Meta(min_length=1)]


class ServiceMonitor(_Strict):
    api_version: Literal["monitoring.coreos.com/v1"]
    kind: Literal["ServiceMonitor"]
    metadata: _Metadata
    spec: _ServiceMonitorSpec


class _Rule(_Strict, rename=None):
    alert: _Text
    expr: _Text
    labels: dict[str, str]
    annotations: dict[str, str]
    for_: _Duration = msgspec.field(name="for", default="0s")


class _Group(_Strict):
    name: _Text
    rules: Annotated[list[_Rule], msgspec.Meta(min_length=1)]


class _PrometheusRuleSpec(_Strict):
    groups: Annotated[list[_Group], msgspec.Meta(min_length=1)]


class PrometheusRule(_Strict):
    api_version: Literal["monitoring.coreos.com/v1"]
    kind: Literal["PrometheusRule"]
    metadata: _Metadata
    spec: _PrometheusRuleSpec


CUSTOM_KINDS: dict[str, type[_Strict]] = {
    kind.__name__: kind for kind in (PrometheusRule, ScaledObject, ServiceMonitor, TriggerAuthentication)
}
