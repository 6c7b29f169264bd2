//! Series that come and go.
//!
//! OpenTelemetry's SDK repeats every series of an observable instrument for ever once it was observed. A series of a device
//! in trouble must go when the trouble does, so these are a collector of their own in the same registry, from the same catalogue.

use std::sync::Arc;

use prometheus::core::{Collector, Desc};
use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};

use super::catalogue::{Instrument, Kind, Series, instruments};
use super::{MAX_SERIES, Scraped, lock};

/// Collects all listed instruments.
pub(super) struct Listed {
    scraped: Arc<Scraped>,
    descriptions: Vec<Desc>,
}

impl Listed {
    pub(super) fn new(scraped: Arc<Scraped>) -> Self {
        let description = |instrument: &Instrument| {
            let labels = instrument.labels.iter().map(|label| (*label).to_owned()).collect();
            Desc::new(
                instrument.name.to_owned(),
                instrument.question.to_owned(),
                labels,
                Default::default(),
            )
            .ok()
        };
        let listed = instruments().filter(|instrument| matches!(instrument.kind, Kind::ListedCounter(_) | Kind::ListedGauge(_)));
        Self {
            scraped,
            descriptions: listed.filter_map(description).collect(),
        }
    }
}

impl Collector for Listed {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let scraped = lock(&self.scraped);
        let Some(scrape) = scraped.as_ref() else { return vec![] };
        let moment = scrape.moment();
        let mut families = Vec::new();
        for instrument in instruments() {
            let (kind, read) = match instrument.kind {
                Kind::ListedCounter(read) => (MetricType::COUNTER, read),
                Kind::ListedGauge(read) => (MetricType::GAUGE, read),
                _ => continue,
            };
            let mut all = read(&moment);
            all.truncate(MAX_SERIES);
            if all.is_empty() {
                continue;
            }
            let mut family = MetricFamily::default();
            family.set_name(instrument.name.to_owned());
            family.set_help(instrument.question.to_owned());
            family.set_field_type(kind);
            family.set_metric(all.into_iter().map(|series| metric(instrument, kind, series)).collect());
            families.push(family);
        }
        families
    }
}

fn metric(instrument: &Instrument, kind: MetricType, series: Series) -> Metric {
    let labels = instrument.labels.iter().zip(series.labels).map(|(name, value)| {
        let mut label = LabelPair::default();
        label.set_name((*name).to_owned());
        label.set_value(value);
        label
    });
    let mut metric = Metric::from_label(labels.collect());
    if kind == MetricType::COUNTER {
        let mut counter = Counter::default();
        counter.set_value(series.value);
        metric.set_counter(counter);
    } else {
        let mut gauge = Gauge::default();
        gauge.set_value(series.value);
        metric.set_gauge(gauge);
    }
    metric
}
