#!/usr/bin/env python3
"""Makes the dashboards' JSON with Grafana's foundation SDK, or checks that what is committed is what it makes.

    pip install grafana-foundation-sdk==1769699998!10.1.0
    python3 dashboards/grafana/build.py            writes the JSON files beside this one
    python3 dashboards/grafana/build.py --check    fails if one differs, or is not a dashboard to the SDK
"""

import json
import pathlib
import sys

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, table, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

HERE = pathlib.Path(__file__).parent
SOURCE = models.DataSourceRef(type_val="prometheus", uid="${source}")
AT = '{instance=~"$instance"}'
WIDTH = 24


def at(more: str) -> str:
    """The selector of the chosen gateways with more labels."""
    return '{instance=~"$instance", ' + more + "}"


def thresholds(*steps):
    """Colours from values on; the first has no value."""
    return (
        dashboard.ThresholdsConfig()
        .mode(models.ThresholdsMode.ABSOLUTE)
        .steps([models.Threshold(value=value, color=color) for value, color in steps])
    )


GOOD_ABOVE_ZERO = thresholds((None, "red"), (1, "green"))
BAD_ABOVE_ZERO = thresholds((None, "green"), (1, "orange"))


def queries(panel, targets, instant=False):
    for ref, (expr, legend) in zip("ABCDEFGH", targets):
        query = prometheus.Dataquery().expr(expr).legend_format(legend).ref_id(ref)
        query = query.instant().format(PromQueryFormat.TABLE) if instant else query.range()
        panel = panel.with_target(query)
    return panel


def graph(title, question, unit, *targets, width=12, height=8):
    panel = timeseries.Panel().title(title).description(question).unit(unit).min(0).datasource(SOURCE)
    panel = panel.fill_opacity(10).span(width).height(height)
    panel = panel.legend(common.VizLegendOptions().show_legend(True).placement("bottom").display_mode("list"))
    return queries(panel, targets)


def signed(title, question, unit, *targets, width=12, height=8):
    """A graph of what may be negative."""
    panel = timeseries.Panel().title(title).description(question).unit(unit).datasource(SOURCE).span(width).height(height)
    return queries(panel, targets)


def tile(title, question, unit, steps, *targets, width=8, height=8, mappings=None, decimals=None):
    panel = stat.Panel().title(title).description(question).unit(unit).datasource(SOURCE).span(width).height(height)
    panel = panel.thresholds(steps).graph_mode("area").color_mode("background")
    panel = panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    if mappings:
        panel = panel.mappings(mappings)
    if decimals is not None:
        panel = panel.decimals(decimals)
    return queries(panel, targets)


def rows(title, question, unit, expr, width=12, height=8):
    panel = table.Panel().title(title).description(question).unit(unit).datasource(SOURCE).span(width).height(height)
    hidden = {"Time": True, "__name__": True, "job": True}
    panel = panel.with_transformation(models.DataTransformerConfig(id_val="organize", options={"excludeByName": hidden}))
    return queries(panel, [(expr, "")], instant=True)


def words(values):
    """Values shown as words."""
    results = {value: models.ValueMappingResult(text=text, color=color) for value, (text, color) in values.items()}
    return [models.ValueMap(options=results)]


def board(uid, title, question, panels):
    made = (
        dashboard.Dashboard(title)
        .uid(uid)
        .description(question)
        .tags(["forebay"])
        .refresh("5s")
        .time("now-1h", "now")
        .timezone("browser")
        .readonly()
        .with_variable(dashboard.DatasourceVariable("source").label("Prometheus").type("prometheus"))
        .with_variable(
            dashboard.QueryVariable("instance")
            .label("Gateway")
            .datasource(SOURCE)
            .query("label_values(forebay_build_info, instance)")
            .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
            .multi(True)
            .include_all(True)
            .all_value(".+")
        )
        .link(dashboard.DashboardLink("Forebay").type(models.DashboardLinkType.DASHBOARDS).tags(["forebay"]).keep_time(True).include_vars(True))
    )
    for panel in panels:
        made = made.with_panel(panel)
    return made.build()


def overview():
    link = words({"1": ("flowing", "green"), "0": ("stalled or away", "red")})
    return board(
        "forebay-overview",
        "Forebay: overview",
        "Six tiles: does it flow, and if not, how long does the log last?",
        [
            graph("Flowing", "What devices send, and what the cloud acks, each second. In the long run both are the same.", "ops",
                  (f"sum(instance:forebay_accepted:rate1m{AT})", "from devices"), (f"sum(instance:forebay_delivered:rate1m{AT})", "to the cloud"), width=8),
            tile("Stalled", "The worst link to a cloud: connected and acking, or not.", "none", GOOD_ABOVE_ZERO,
                 (f"min(forebay_cloud_connected{AT} - forebay_cloud_stalled{AT})", "link"), mappings=link),
            tile("Duplicated", "What arrived twice within the last hour: sent twice by devices, or perhaps sent twice to the cloud.", "none", BAD_ABOVE_ZERO,
                 (f"sum(increase(forebay_sequence_duplicates_total{AT}[1h]))", "by devices"),
                 (f"sum(increase(forebay_cloud_duplicates_suspected_total{AT}[1h]))", "to the cloud"), decimals=0),
            graph("Waiting", "Records that wait for the cloud. It should return to zero.", "none",
                  (f"sum(instance:forebay_waiting_records:sum{AT})", "records"), width=8),
            tile("Autonomy", "How long the log of the fullest gateway lasts without its cloud, beside `gateway.survive.outage`.", "s",
                 thresholds((None, "red"), (3600, "orange"), (43200, "green")),
                 (f"min(forebay_autonomy_seconds{AT})", "at the present rate"), (f"min(forebay_survive_autonomy_seconds{AT})", "at the planned rate")),
            rows("Alarms", "The alerts that fire now; none is best. Each has a page in docs/runbooks.", "none",
                 f'sum by (instance, alertname, severity, device, topic, route) (ALERTS{at("alertstate=" + chr(34) + "firing" + chr(34) + ", alertname=~" + chr(34) + "Forebay.*" + chr(34))})', width=8),
        ],
    )


def devices():
    return board(
        "forebay-devices",
        "Forebay: devices",
        "Who is connected, what they send, and which of them is in trouble.",
        [
            graph("Accepted", "Publishes accepted each second, by gateway.", "ops", (f"instance:forebay_accepted:rate1m{AT}", "{{instance}}")),
            graph("Connections", "Device connections open now.", "none", (f"forebay_connections{AT}", "{{instance}}")),
            graph("Wait for an ack", "From a publish read to its ack written: half of them, and all but one in a hundred.", "s",
                  (f"histogram_quantile(0.5, sum by (le) (rate(forebay_ack_latency_seconds_bucket{AT}[1m])))", "median"),
                  (f"max(instance:forebay_ack_latency_seconds:p99_1m{AT})", "99 of 100")),
            graph("Refused and dropped", "By reason, each second. Refused: the device is told. Dropped: QoS 0, the device is not told.", "ops",
                  (f"sum by (reason) (rate(forebay_refused_total{AT}[1m]))", "refused: {{reason}}"), (f"sum by (reason) (rate(forebay_dropped_total{AT}[1m]))", "dropped: {{reason}}")),
            graph("Connections ended", "Other than by the device's own DISCONNECT, by reason, in five minutes.", "none",
                  (f"sum by (reason) (increase(forebay_disconnects_total{AT}[5m]))", "{{reason}}")),
            graph("Handshakes failed", "By reason, in five minutes.", "none", (f"sum by (reason) (increase(forebay_handshake_faults_total{AT}[5m]))", "{{reason}}")),
            graph("In trouble", "Series that `watch` finds in trouble, by signal.", "none", (f"sum by (signal) (forebay_watch_trouble{AT})", "{{signal}}")),
            graph("Silent", "How long each silent device has been silent.", "s", (f"forebay_device_silent_seconds{AT}", "{{device}} {{topic}}")),
            graph("Missing and twice", "Messages skipped, and sent twice, by device, in the last five minutes.", "none",
                  (f"forebay_device_missing{AT}", "{{device}} misses {{range}}"), (f"forebay_device_duplicates{AT}", "{{device}} twice")),
            graph("Flapping and restarting", "By device.", "none",
                  (f"forebay_device_flaps{AT}", "{{device}}: {{reason}}"), (f"forebay_device_restarts{AT}", "{{device}} restarted")),
            signed("Drift", "The median difference of a field to its reference, where it is beyond the limit.", "none", (f"forebay_field_drift{AT}", "{{device}} {{field}}")),
            graph("Sequence", "Gaps, numbers missing, repeats and reorders each second, over all devices.", "ops",
                  (f"sum(rate(forebay_sequence_gaps_total{AT}[1m]))", "gaps"), (f"sum(rate(forebay_sequence_missing_total{AT}[1m]))", "missing"),
                  (f"sum(rate(forebay_sequence_duplicates_total{AT}[1m]))", "twice"), (f"sum(rate(forebay_sequence_reordered_total{AT}[1m]))", "out of order")),
            rows("No route", "Topics that match no route, with the nearest one.", "none", f"sum by (instance, topic, nearest) (forebay_unrouted_topic_total{AT})"),
            rows("Routes", "How often each route matched since the start; 0 if it is misspelt, or has no traffic.", "none", f"sum by (instance, route) (forebay_route_matched_total{AT})"),
            rows("Wrong names", "Names that devices dial and our certificate lacks.", "none", f"sum by (instance, name) (forebay_wrong_name_total{AT})"),
            graph("Local subscribers", "Messages delivered, and lost by slow ones, each second.", "ops",
                  (f"sum(rate(forebay_fanned_out_total{AT}[1m]))", "delivered"), (f"sum(rate(forebay_fanout_dropped_total{AT}[1m]))", "lost")),
        ],
    )


def log_and_disk():
    return board(
        "forebay-log",
        "Forebay: log and disk",
        "Are the acked records safe, and how long does the space last?",
        [
            graph("Waiting", "Bytes that wait for the cloud, by stream, as a share of the stream's bound.", "percentunit",
                  (f"forebay_waiting_bytes{AT} / forebay_stream_max_bytes{AT}", "{{instance}} {{stream}}")),
            graph("Age of the oldest", "Of the records that wait, by stream.", "s", (f"forebay_oldest_age_seconds{AT}", "{{instance}} {{stream}}")),
            graph("Autonomy", "How long the log lasts without the cloud, and how long it should (`gateway.survive.outage`).", "s",
                  (f"forebay_autonomy_seconds{AT} < 864000 or forebay_survive_outage_seconds{AT}", "{{instance}}"), (f"max(forebay_survive_outage_seconds{AT})", "should")),
            graph("Lost", "Records dropped at a bound, too old, unreadable, and those that the cloud will never accept, in five minutes.", "none",
                  (f"sum(increase(forebay_evicted_total{AT}[5m]))", "dropped at a bound"), (f"sum(increase(forebay_expired_total{AT}[5m]))", "too old"),
                  (f"sum(increase(forebay_damaged_total{AT}[5m]))", "unreadable"), (f"sum(increase(forebay_dead_lettered_total{AT}[5m]))", "dead letters")),
            graph("Disk taken", "By the log, and its bound.", "bytes", (f"forebay_disk_bytes{AT}", "{{instance}}"), (f"max(forebay_disk_max_bytes{AT})", "largest bound")),
            graph("Disk free", "In the log's file system, and what must stay free.", "bytes", (f"forebay_free_bytes{AT}", "{{instance}}"), (f"max(forebay_keep_free_bytes{AT})", "must stay free")),
            graph("Commit", "How long a commit takes, sync included.", "s",
                  (f"histogram_quantile(0.5, sum by (le) (rate(forebay_commit_latency_seconds_bucket{AT}[1m])))", "median"),
                  (f"max(instance:forebay_commit_latency_seconds:p99_1m{AT})", "99 of 100")),
            graph("Commits", "Each second; each writes some 40 KiB.", "ops", (f"rate(forebay_commits_total{AT}[1m])", "{{instance}}"), (f"rate(forebay_failed_commits_total{AT}[1m])", "{{instance}} failed")),
            graph("Written", "Encoded bytes of records committed each second.", "Bps", (f"rate(forebay_committed_bytes_total{AT}[1m])", "{{instance}}")),
            rows("Expires", "Certificates and revocation lists, and when they expire.", "s", f"min by (instance, what, file) (forebay_expiry_seconds{AT})"),
            rows("Next deadlines", "What fails if nothing is done, and when.", "s", f"min by (instance, what) (forebay_deadline_seconds{AT})"),
            rows("Self-check", "What `forebay check` finds, hourly.", "none", f"sum by (instance, severity, area) (forebay_check_findings{AT})"),
            tile("Start", "Records recovered at the last start, records found damaged, and segments quarantined.", "none", thresholds((None, "green")),
                 (f"sum(forebay_start_recovered_records{AT})", "recovered"), (f"sum(forebay_start_damaged_records{AT})", "damaged"), (f"sum(forebay_start_quarantined_segments{AT})", "segments quarantined"), width=12),
        ],
    )


def bridge():
    return board(
        "forebay-bridge",
        "Forebay: bridge",
        "The path to the cloud: is the link up, what does the cloud answer, what is sent twice?",
        [
            graph("Link", "Connected, and stalled: connected without acks.", "none", (f"forebay_cloud_connected{AT}", "{{instance}} connected"), (f"forebay_cloud_stalled{AT}", "{{instance}} stalled"), height=6),
            graph("Connections ended", "Or failed to connect, by reason, in five minutes.", "none", (f"sum by (reason) (increase(forebay_cloud_reconnects_total{AT}[5m]))", "{{reason}}"), height=6),
            graph("Sent and delivered", "Publishes each second; more sent than delivered means repeats or refusals.", "ops",
                  (f"sum(rate(forebay_cloud_sent_total{AT}[1m]))", "sent"), (f"sum(rate(forebay_cloud_delivered_total{AT}[1m]))", "delivered")),
            graph("In flight", "Publishes that wait for the cloud's ack, and devices that wait after a refusal.", "none",
                  (f"forebay_cloud_in_flight{AT}", "{{instance}}"), (f"sum(forebay_cloud_waiting_devices{AT})", "waiting devices")),
            graph("Age at delivery", "From a publish accepted to its ack by the cloud, half of them; live, and late (waited over 30 s).", "s",
                  (f"histogram_quantile(0.5, sum by (le, late) (rate(forebay_delivery_age_seconds_bucket{AT}[1m])))", "late: {{late}}")),
            graph("Twice", "Sent again: refused for the moment, replayed after a cut, perhaps sent before a restart, delivered perhaps twice; in five minutes.", "none",
                  (f"sum(increase(forebay_cloud_retried_total{AT}[5m]))", "refused for the moment"), (f"sum(increase(forebay_cloud_replayed_total{AT}[5m]))", "replayed"),
                  (f"sum(increase(forebay_cloud_replayed_perhaps_total{AT}[5m]))", "perhaps before a restart"), (f"sum(increase(forebay_cloud_duplicates_suspected_total{AT}[5m]))", "delivered perhaps twice")),
            graph("Refused", "By MQTT reason code, each second: 0x87 is its policy, 0x97 a quota.", "ops", (f"sum by (code) (rate(forebay_cloud_refused_total{AT}[1m]))", "{{code}}")),
            graph("Denied", "Devices denied by the cloud's policy, by route; pairs and whole routes suspended.", "none",
                  (f"forebay_cloud_denied{AT}", "{{route}}"), (f"sum(forebay_cloud_suspended{AT})", "pairs"), (f"sum(forebay_cloud_suspended_routes{AT})", "routes")),
            graph("Canary", "How long our own test message took, and how long the present one waits.", "s",
                  (f"forebay_canary_round_trip_seconds{AT}", "{{instance}} round trip"), (f"forebay_canary_waiting_seconds{AT}", "{{instance}} waits")),
            graph("Dead letters", "By reason, in five minutes.", "none", (f"sum by (reason) (increase(forebay_cloud_dead_total{AT}[5m]))", "{{reason}}")),
            graph("Bytes sent", "To the cloud each second, before TLS.", "Bps", (f"rate(forebay_cloud_sent_bytes_total{AT}[1m])", "{{instance}}")),
        ],
    )


BOARDS = {"overview": overview, "devices": devices, "log-and-disk": log_and_disk, "bridge": bridge}


def main() -> int:
    differ = []
    for name, make in BOARDS.items():
        text = json.dumps(make(), cls=JSONEncoder, indent=1, sort_keys=True) + "\n"
        path = HERE / f"{name}.json"
        if "--check" in sys.argv:
            # The SDK reads what is committed: unknown kinds and wrong types end here.
            models.Dashboard.from_json(json.loads(path.read_text()))
            if path.read_text() != text:
                differ.append(path.name)
        else:
            path.write_text(text)
    if differ:
        print("not what build.py makes:", ", ".join(differ), file=sys.stderr)
    return 1 if differ else 0


if __name__ == "__main__":
    sys.exit(main())
