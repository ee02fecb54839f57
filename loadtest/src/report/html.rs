//! The report as one HTML page: style and drawings inside, nothing to load, nothing to run.

use super::table::Table;
use super::{Report, Section, svg, table};

const STYLE: &str = include_str!("page.css");

pub(super) fn page(report: &Report) -> String {
    let title = escape(&report.title);
    let mut out = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n\
         <body>\n<h1>{title}</h1>\n<dl>\n"
    );
    fact(&mut out, "Command", &format!("<code>{}</code>", escape(&report.command)));
    fact(&mut out, "Date", &escape(&report.date));
    fact(&mut out, "Machine", &escape(&report.machine));
    let versions = report.versions.iter().map(|(program, version)| format!("{program} {version}"));
    let versions: Vec<String> = versions.collect();
    if !versions.is_empty() {
        fact(&mut out, "Versions", &escape(&versions.join("; ")));
    }
    out.push_str("</dl>\n");
    notes(&mut out, &report.notes);
    for part in &report.sections {
        section(&mut out, part);
    }
    out.push_str("</body>\n</html>\n");
    out
}

fn fact(out: &mut String, name: &str, html: &str) {
    out.push_str(&format!("<dt>{name}</dt><dd>{html}</dd>\n"));
}

fn notes(out: &mut String, notes: &[String]) {
    for note in notes {
        out.push_str(&format!("<p>{}</p>\n", escape(note)));
    }
}

fn section(out: &mut String, section: &Section) {
    out.push_str(&format!("<section>\n<h2>{}</h2>\n", escape(&section.title)));
    notes(out, &section.notes);
    if !section.goals.is_empty() {
        html_table(out, &table::goals(&section.goals));
    }
    for chart in &section.charts {
        let drawing = svg::draw(chart);
        out.push_str(&format!("<figure>\n<figcaption>{}</figcaption>\n{drawing}</figure>\n", escape(&chart.title)));
    }
    for table in &section.tables {
        html_table(out, table);
    }
    out.push_str("</section>\n");
}

fn html_table(out: &mut String, table: &Table) {
    out.push_str(&format!("<div class=\"scroll\"><table>\n<thead><tr><th>{}</th>", escape(table.rows_are())));
    for column in table.columns() {
        out.push_str(&format!("<th>{}</th>", escape(&column.heading())));
    }
    out.push_str("</tr></thead>\n<tbody>\n");
    for (name, cells) in table.shown() {
        out.push_str(&format!("<tr><th>{}</th>", escape(name)));
        for cell in cells {
            let class = if cell.is_number { "number" } else { "text" };
            out.push_str(&format!("<td class=\"{class}\">{}", escape(&cell.value)));
            if !cell.spread.is_empty() {
                out.push_str(&format!(" <small>{}</small>", escape(&cell.spread)));
            }
            out.push_str("</td>");
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</tbody></table></div>\n");
}

/// A text that is nothing but text, between tags and in quotes.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}
