//! The data and the questions: what a machine costs that is made of parts that are made of parts.
//!
//! Part 1 is the machine. Each other part sits, some number of times, in the part of half its number.

use std::ffi::CStr;

/// How many parts there are, in [`FILL`] too.
pub const COUNT: usize = 3000;

/// Makes and fills the table. [`price`] and [`answers`] have the same formulas.
pub const FILL: &CStr = c"
    CREATE TABLE parts (id INTEGER PRIMARY KEY, whole INTEGER, quantity INTEGER, price INTEGER);
    CREATE INDEX parts_of ON parts (whole);
    INSERT INTO parts
        WITH RECURSIVE ids (id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM ids WHERE id < 3000)
        SELECT id, id / 2, 1 + id % 3, 1 + id * 7919 % 1000 FROM ids;
";

/// What all parts cost if each is bought once, with tax.
pub const PRICES: &CStr = c"SELECT sum(with_tax(price)) FROM parts";

/// What one part costs with all that is in it.
pub const COST: &CStr = c"SELECT cost(id, price) FROM parts WHERE id = ?1";

/// What the parts of one part cost.
pub const COST_INSIDE: &CStr = c"SELECT sum(quantity * cost(id, price)) FROM parts WHERE whole = ?1";

/// What a part costs by itself, without tax.
pub fn price(id: i64) -> i64 {
    1 + id * 7919 % 1000
}

/// A price with 19 % tax, rounded.
///
/// # Panics
/// When the price is negative.
pub fn with_tax(price: i64) -> i64 {
    assert!(price >= 0, "the price {price} is negative");
    price + (price * 19 + 50) / 100
}

/// The right answers, worked out without SQL.
pub struct Answers {
    /// To [`PRICES`].
    pub prices: i64,
    /// To [`COST`], by the part's number.
    pub costs: Vec<i64>,
}

/// From the last part to the first, each adds its cost to what it sits in.
pub fn answers() -> Answers {
    let mut costs: Vec<i64> = (0..=COUNT as i64).map(|id| with_tax(price(id))).collect();
    let prices = costs[1..].iter().sum();
    for id in (1..=COUNT).rev() {
        costs[id / 2] += (1 + id as i64 % 3) * costs[id];
    }
    Answers { prices, costs }
}
