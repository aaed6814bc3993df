//! Bar charts as SVG.

use std::error::Error;
use std::fs;
use std::path::Path;

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::report::{Chart, number};

const WIDTH: u32 = 760;
const BAR: u32 = 30;
const TOP: u32 = 56;
/// Room for the names, and for the numbers behind the bars.
const LEFT: i32 = 250;
const RIGHT: i32 = 90;

/// Draws each chart into `folder`.
pub fn draw(folder: &Path, charts: &[Chart]) -> Result<(), Box<dyn Error>> {
    fs::create_dir_all(folder)?;
    for chart in charts {
        draw_one(&folder.join(chart.file).with_extension("svg"), chart)?;
    }
    Ok(())
}

/// Our own bars have a colour of their own.
fn draw_one(path: &Path, chart: &Chart) -> Result<(), Box<dyn Error>> {
    let height = TOP + BAR * chart.bars.len() as u32 + 12;
    let area = SVGBackend::new(path, (WIDTH, height)).into_drawing_area();
    area.fill(&WHITE)?;
    let font = |size: i32| ("sans-serif", size).into_font().color(&BLACK);
    area.draw_text(&chart.title, &font(18), (12, 10))?;
    area.draw_text(chart.unit, &font(13), (12, 34))?;
    let max = chart.bars.iter().map(|(_, value)| *value).fold(f64::MIN_POSITIVE, f64::max);
    let room = f64::from(WIDTH as i32 - LEFT - RIGHT);
    for (row, (name, value)) in chart.bars.iter().enumerate() {
        let top = (TOP + BAR * row as u32) as i32;
        let middle = top + BAR as i32 / 2;
        let end = LEFT + (value / max * room).round().max(1.0) as i32;
        let ours = name.starts_with("noise-pool");
        let colour = if ours { RGBColor(31, 119, 180) } else { RGBColor(170, 170, 170) };
        let right = font(14).pos(Pos::new(HPos::Right, VPos::Center));
        let left = font(14).pos(Pos::new(HPos::Left, VPos::Center));
        area.draw(&Rectangle::new(
            [(LEFT, top + 4), (end, top + BAR as i32 - 4)],
            colour.filled(),
        ))?;
        area.draw(&Text::new(name.clone(), (LEFT - 8, middle), right))?;
        area.draw(&Text::new(number(*value), (end + 6, middle), left))?;
    }
    area.present()?;
    Ok(())
}
