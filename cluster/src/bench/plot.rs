//! Draws a report as SVG: throughput and latency over time, and the percentiles.

use std::ops::Range;
use std::path::Path;

use anyhow::{Context as _, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;

use super::report::{Report, Run};

const WIDTH: u32 = 960;
const PANEL_HEIGHT: u32 = 300;

const FONT: &str = "sans-serif";

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// A line of a panel.
struct Line {
    name: String,
    color: RGBColor,
    points: Vec<(f64, f64)>,
}

/// One drawing: lines over one axis.
struct Panel {
    title: String,
    x_name: &'static str,
    lines: Vec<Line>,
    /// The axis to the right is one of parts of all records, where each nine is as wide as the one
    /// before.
    is_percentiles: bool,
}

const COLORS: [RGBColor; 6] = [
    RGBColor(0x1f, 0x77, 0xb4),
    RGBColor(0xd6, 0x27, 0x28),
    RGBColor(0x2c, 0xa0, 0x2c),
    RGBColor(0x94, 0x67, 0xbd),
    RGBColor(0xff, 0x7f, 0x0e),
    RGBColor(0x7f, 0x7f, 0x7f),
];

/// Parts above are drawn at the end of the axis.
const NINES_MAX: f64 = 5.0;

/// Writes the file.
///
/// # Errors
/// If it can't be written, or nothing was measured that can be drawn.
pub(super) fn draw(path: &Path, report: &Report) -> anyhow::Result<()> {
    let svg = svg(report)?;
    std::fs::write(path, svg).with_context(|| format!("can't write {}", path.display()))
}

fn svg(report: &Report) -> anyhow::Result<String> {
    let panels = panels(report);
    let mut svg = String::new();
    {
        let height = PANEL_HEIGHT * u32::try_from(panels.len().max(1))?;
        let root = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
        root.fill(&WHITE).map_err(|error| anyhow!("can't draw: {error}"))?;
        for (area, panel) in root.split_evenly((panels.len().max(1), 1)).iter().zip(&panels) {
            draw_panel(area, panel).map_err(|error| anyhow!("can't draw: {error}"))?;
        }
        root.present().map_err(|error| anyhow!("can't draw: {error}"))?;
    }
    Ok(svg)
}

/// The drawings that a report has data for.
fn panels(report: &Report) -> Vec<Panel> {
    let name = report.bench;
    let mut panels = Vec::new();
    if report.runs.iter().any(|run| !run.points.is_empty()) {
        let lines = each_run(report, "records/s", |run| {
            run.points.iter().map(|point| (point.at_s, point.records_per_s)).collect()
        });
        panels.push(Panel {
            title: format!("{name}: records in a second"),
            x_name: "seconds",
            lines,
            is_percentiles: false,
        });
        let mut lines = each_run(report, "p50", |run| {
            run.points.iter().map(|point| (point.at_s, point.p50_ms)).collect()
        });
        lines.extend(each_run(report, "p99", |run| {
            run.points.iter().map(|point| (point.at_s, point.p99_ms)).collect()
        }));
        recolor(&mut lines);
        panels.push(Panel {
            title: format!("{name}: latency, milliseconds"),
            x_name: "seconds",
            lines,
            is_percentiles: false,
        });
    }
    let lines = each_run(report, "latency", |run| {
        run.curve.iter().map(|point| (nines(point.part), point.ms)).collect()
    });
    panels.push(Panel {
        title: format!("{name}: latency by percentile, milliseconds"),
        x_name: "part of all",
        lines,
        is_percentiles: true,
    });
    panels
}

/// One line a run; the first runs, where there are many.
fn each_run(report: &Report, what: &str, of: impl Fn(&Run) -> Vec<(f64, f64)>) -> Vec<Line> {
    let lines = report.runs.iter().zip(1..).zip(COLORS).map(|((run, number), color)| {
        let name = match report.runs.len() {
            1 => what.to_owned(),
            _ => format!("{what}, run {number}"),
        };
        Line { name, color, points: of(run) }
    });
    lines.collect()
}

fn recolor(lines: &mut [Line]) {
    for (line, color) in lines.iter_mut().zip(COLORS.into_iter().cycle()) {
        line.color = color;
    }
}

/// How many nines a part has: 0.9 one, 0.99 two.
fn nines(part: f64) -> f64 {
    (-(1.0 - part).max(1e-9).log10()).min(NINES_MAX)
}

fn draw_panel(area: &Area<'_>, panel: &Panel) -> Result<(), Box<dyn std::error::Error>> {
    let points = || panel.lines.iter().flat_map(|line| &line.points);
    let x = match panel.is_percentiles {
        true => 0.0..NINES_MAX,
        false => 0.0..greatest(points().map(|point| point.0)),
    };
    let y: Range<f64> = 0.0..greatest(points().map(|point| point.1)) * 1.05;
    let mut chart = ChartBuilder::on(area)
        .caption(&panel.title, (FONT, 20))
        .margin(12)
        .x_label_area_size(34)
        .y_label_area_size(72)
        .build_cartesian_2d(x, y)?;
    let label = |x: &f64| match panel.is_percentiles {
        true => part_name(*x),
        false => format!("{x:.0}"),
    };
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .bold_line_style(RGBColor(0xdd, 0xdd, 0xdd))
        .x_desc(panel.x_name)
        .x_labels(6)
        .label_style((FONT, 15))
        .x_label_formatter(&label)
        .draw()?;
    for line in &panel.lines {
        let color = line.color;
        chart
            .draw_series(LineSeries::new(line.points.iter().copied(), color.stroke_width(2)))?
            .label(&line.name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], color.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .label_font((FONT, 15))
        .background_style(WHITE.mix(0.8))
        .border_style(RGBColor(0xbb, 0xbb, 0xbb))
        .position(SeriesLabelPosition::UpperLeft)
        .draw()?;
    Ok(())
}

/// What stands at a number of nines: 1 is 90 %.
fn part_name(nines: f64) -> String {
    let percent = (1.0 - 10_f64.powf(-nines)) * 100.0;
    let decimals = match nines {
        nines if nines < 2.5 => 0,
        nines if nines < 3.5 => 1,
        nines if nines < 4.5 => 2,
        _ => 3,
    };
    format!("{percent:.decimals$} %")
}

/// At least a little, so that an axis has a length.
fn greatest(values: impl Iterator<Item = f64>) -> f64 {
    values.fold(1e-3, f64::max)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::Value;

    use super::super::meter::{Meter, Window};
    use super::*;

    #[tokio::test]
    async fn a_report_is_drawn_with_all_its_runs() {
        let mut runs = Vec::new();
        for _ in 0..2 {
            let window = Window::after(Duration::ZERO, Duration::from_secs(1));
            let mut meter = Meter::new(window);
            for ms in 0..1_000 {
                let due = window.start + Duration::from_millis(ms);
                meter.acked(due, due + Duration::from_micros(ms), 1);
            }
            let mut run = Run::default();
            run.set_meter(&mut meter);
            runs.push(run);
        }
        let report = Report { bench: "append", settings: Value::Null, runs };
        let svg = svg(&report).unwrap();
        assert!(svg.starts_with("<svg"), "{svg}");
        for text in ["append: records in a second", "p99, run 2", "part of all", "99.9 %"] {
            assert!(svg.contains(text), "no {text} in {svg}");
        }
    }

    #[test]
    fn a_report_without_latencies_is_drawn_empty() {
        let report = Report { bench: "idle", settings: Value::Null, runs: vec![Run::default()] };
        assert!(svg(&report).unwrap().contains("</svg>"));
    }

    #[test]
    fn each_nine_is_as_wide_as_the_one_before() {
        assert!((nines(0.999) - 3.0).abs() < 1e-6);
        assert!((nines(1.0) - NINES_MAX).abs() < f64::EPSILON);
        assert_eq!(part_name(0.0), "0 %");
        assert_eq!(part_name(1.0), "90 %");
        assert_eq!(part_name(3.0), "99.9 %");
    }
}
