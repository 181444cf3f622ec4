//! Bar charts as SVG: one file without references, in the colours of a light or a dark page.

use std::fmt::Write as _;

/// Bars in groups, with a scale from 0 on.
pub(super) struct Chart {
    pub(super) title: String,
    pub(super) unit: &'static str,
    /// What is beneath each group.
    pub(super) groups: Vec<String>,
    /// A name for the legend, and a value for each group. None is negative.
    pub(super) series: Vec<(String, Vec<f64>)>,
}

const WIDTH: f64 = 720.0;
/// Of one chart; they are stacked.
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 700.0;
const TOP: f64 = 76.0;
const BOTTOM: f64 = 256.0;
/// Lines of the scale.
const STEPS: u8 = 4;
/// For the page, text, lines of the scale, and series. More series begin anew.
const LIGHT: [&str; 7] = [
    "#ffffff", "#1f2328", "#d0d7de", "#0072b2", "#d55e00", "#009e73", "#a05083",
];
const DARK: [&str; 7] = [
    "#0d1117", "#e6edf3", "#3d444d", "#56b4e9", "#e69f00", "#2fbf96", "#cc79a7",
];
const COLOURS: usize = 4;

/// Draws charts, one beneath the other.
pub(super) fn svg(charts: &[Chart]) -> String {
    let height = HEIGHT * charts.len() as f64;
    let mut svg = String::new();
    // Writing to a string does not fail.
    let _ = write!(
        svg,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         width=\"{WIDTH}\" height=\"{height}\" role=\"img\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<style>{}@media (prefers-color-scheme: dark) {{{}}}</style>\n\
         <rect class=\"page\" width=\"{WIDTH}\" height=\"{height}\"/>\n",
        style(&LIGHT),
        style(&DARK),
    );
    for (number, chart) in charts.iter().enumerate() {
        let y = HEIGHT * number as f64;
        let _ = writeln!(svg, "<g transform=\"translate(0 {y})\">");
        chart.draw(&mut svg);
        svg.push_str("</g>\n");
    }
    svg.push_str("</svg>\n");
    svg
}

fn style([page, text, scale, series @ ..]: &[&str; 7]) -> String {
    let mut style = format!(".page{{fill:{page}}}text{{fill:{text}}}line{{stroke:{scale}}}");
    for (number, colour) in series.iter().enumerate() {
        let _ = write!(style, ".s{number}{{fill:{colour}}}");
    }
    style
}

impl Chart {
    fn draw(&self, svg: &mut String) {
        let title = match self.unit {
            "" => self.title.clone(),
            unit => format!("{}, {unit}", self.title),
        };
        text(svg, (LEFT, 24.0), "start", &title);
        self.draw_legend(svg);
        let most = self.most();
        for step in 0..=STEPS {
            let share = f64::from(step) / f64::from(STEPS);
            let y = BOTTOM - share * (BOTTOM - TOP);
            let _ = writeln!(
                svg,
                "<line x1=\"{LEFT}\" y1=\"{y}\" x2=\"{RIGHT}\" y2=\"{y}\"/>"
            );
            text(svg, (LEFT - 8.0, y + 4.0), "end", &number(most * share));
        }
        let width = (RIGHT - LEFT) / self.groups.len().max(1) as f64;
        for (at, group) in self.groups.iter().enumerate() {
            let x = LEFT + width * at as f64;
            text(svg, (x + width / 2.0, BOTTOM + 20.0), "middle", group);
            self.draw_group(svg, at, (x, width), most);
        }
    }

    fn draw_legend(&self, svg: &mut String) {
        let width = (RIGHT - LEFT) / self.series.len().max(1) as f64;
        for (at, (name, _)) in self.series.iter().enumerate() {
            let (x, colour) = (LEFT + width * at as f64, at % COLOURS);
            let _ = writeln!(
                svg,
                "<rect class=\"s{colour}\" x=\"{x:.1}\" y=\"37\" width=\"12\" height=\"12\"/>"
            );
            text(svg, (x + 18.0, 47.0), "start", name);
        }
    }

    /// The bars of one group, with their values above.
    fn draw_group(&self, svg: &mut String, group: usize, (x, width): (f64, f64), most: f64) {
        // A tenth is free on each side, and bars are not too broad.
        let bar = (width * 0.8 / self.series.len().max(1) as f64).min(60.0);
        let start = x + (width - bar * self.series.len() as f64) / 2.0;
        for (at, (_, values)) in self.series.iter().enumerate() {
            let value = values.get(group).copied().unwrap_or(0.0).max(0.0);
            let height = value / most * (BOTTOM - TOP);
            let (x, y, colour) = (start + bar * at as f64, BOTTOM - height, at % COLOURS);
            let _ = writeln!(
                svg,
                "<rect class=\"s{colour}\" x=\"{:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{height:.1}\"/>",
                x + 1.0,
                bar - 2.0,
            );
            text(svg, (x + bar / 2.0, y - 4.0), "middle", &number(value));
        }
    }

    /// The end of the scale: the greatest value, rounded up to 1, 2, 4 or 8 times a power of ten.
    fn most(&self) -> f64 {
        let values = self.series.iter().flat_map(|(_, values)| values);
        let most = values.copied().fold(0.0, f64::max);
        if most <= 0.0 || !most.is_finite() {
            return 1.0;
        }
        let power = 10_f64.powf(most.log10().floor());
        let ends = [1.0, 2.0, 4.0, 8.0].map(|it| it * power);
        let end = ends.into_iter().find(|end| most <= *end);
        end.unwrap_or(10.0 * power)
    }
}

/// With three digits, or those before the point.
fn number(value: f64) -> String {
    let places = match value {
        0.0 => 0,
        ..0.1 => 3,
        ..10.0 => 2,
        ..100.0 => 1,
        _ => 0,
    };
    format!("{value:.places$}")
}

fn text(svg: &mut String, (x, y): (f64, f64), anchor: &str, text: &str) {
    let _ = writeln!(
        svg,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{}</text>",
        escape(text)
    );
}

/// Text that XML allows, with what has a meaning in it replaced.
fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for it in text.chars() {
        match it {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            it if it.is_control() => escaped.push(' '),
            it => escaped.push(it),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart() -> Chart {
        Chart {
            title: "bytes & <time>\u{0}".to_owned(),
            unit: "KB",
            groups: vec!["1,000".to_owned(), "10,000".to_owned()],
            series: vec![
                ("a \"sync\"".to_owned(), vec![0.76, 5.7]),
                ("]]> listings".to_owned(), vec![0.43, 0.0]),
            ],
        }
    }

    /// The attributes of elements of this name; panics if tags are not nested, or text holds what
    /// it must not.
    fn elements(svg: &str, name: &str) -> Vec<String> {
        let (mut open, mut found) = (Vec::new(), Vec::new());
        let mut parts = svg.split('<');
        assert_eq!(parts.next(), Some(""));
        for part in parts {
            let (tag, text) = part.split_once('>').expect("a tag ends");
            assert!(
                !text.contains('>') && !text.contains(|it: char| it.is_control() && it != '\n')
            );
            for entity in text.split('&').skip(1) {
                let known = ["amp;", "lt;", "gt;"];
                assert!(known.iter().any(|it| entity.starts_with(it)), "{entity}");
            }
            if let Some(ended) = tag.strip_prefix('/') {
                assert_eq!(open.pop(), Some(ended));
                assert!(!open.is_empty() || text.trim().is_empty());
                continue;
            }
            assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
            let is_empty = tag.ends_with('/');
            let tag = tag.trim_end_matches('/');
            let (its, attributes) = tag.split_once(' ').unwrap_or((tag, ""));
            if its == name {
                found.push(attributes.to_owned());
            }
            if !is_empty {
                open.push(its);
            }
        }
        assert!(open.is_empty(), "{open:?}");
        found
    }

    fn attribute(element: &str, name: &str) -> f64 {
        let (_, rest) = element.split_once(&format!("{name}=\"")).unwrap();
        rest.split_once('"').unwrap().0.parse().unwrap()
    }

    #[test]
    fn it_is_well_formed_and_nothing_is_left_out() {
        let svg = svg(&[chart(), chart()]);
        assert_eq!(elements(&svg, "g").len(), 2);
        // Of each chart two of the legend and four bars; and the page.
        assert_eq!(elements(&svg, "rect").len(), 1 + 2 * 6);
        // Of each chart title, legend, scale, groups and values.
        let labels = 1 + 2 + 5 + 2 + 4;
        assert_eq!(elements(&svg, "text").len(), 2 * labels);
        for text in [
            "bytes &amp; &lt;time&gt; , KB",
            "]]&gt; listings",
            "a \"sync\"",
            "10,000",
        ] {
            assert!(svg.contains(&format!(">{text}</text>")), "{text}");
        }
        assert!(svg.contains("prefers-color-scheme: dark"));
        for colour in LIGHT.iter().chain(&DARK) {
            assert!(svg.contains(colour));
        }
    }

    #[test]
    fn bars_are_as_high_as_their_values_and_within_the_chart() {
        let svg = svg(&[chart()]);
        let rects = elements(&svg, "rect");
        let bars = &rects[3..];
        let heights: Vec<_> = bars.iter().map(|it| attribute(it, " height")).collect();
        // Group by group; the scale ends at 8.
        for (height, value) in heights.iter().zip([0.76, 0.43, 5.7, 0.0]) {
            assert!((height - value / 8.0 * (BOTTOM - TOP)).abs() < 0.1);
        }
        let mut end = LEFT;
        for (bar, height) in bars.iter().zip(heights) {
            assert!((attribute(bar, " y") + height - BOTTOM).abs() < 0.11);
            // They do not overlap.
            assert!(attribute(bar, " x") >= end);
            end = attribute(bar, " x") + attribute(bar, " width");
        }
        assert!(end <= RIGHT);
    }

    #[test]
    fn without_values_it_is_still_a_chart() {
        let mut empty = chart();
        empty.series.clear();
        elements(&svg(&[empty]), "rect");
        let mut missing = chart();
        missing.series = vec![("a".to_owned(), vec![0.0]), ("b".to_owned(), Vec::new())];
        let svg = svg(&[missing]);
        let rects = elements(&svg, "rect");
        let heights: Vec<_> = rects[3..]
            .iter()
            .map(|it| attribute(it, " height"))
            .collect();
        assert_eq!(heights, [0.0; 4]);
    }
}
