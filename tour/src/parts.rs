//! The data and the questions: the cost of a machine made of parts, down many levels.
//!
//! Part 1 is the machine. Each other part sits in the part of half its number, one or more times.

use std::ffi::CStr;

/// The number of parts, also in [`FILL`].
pub const COUNT: usize = 3000;

/// Makes and fills the table. [`price`] and [`answers`] have the same formulas.
pub const FILL: &CStr = c"
    CREATE TABLE parts (id INTEGER PRIMARY KEY, whole INTEGER, quantity INTEGER, price INTEGER);
    CREATE INDEX parts_of ON parts (whole);
    INSERT INTO parts
        WITH RECURSIVE ids (id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM ids WHERE id < 3000)
        SELECT id, id / 2, 1 + id % 3, 1 + id * 7919 % 1000 FROM ids;
";

/// The cost of buying each part once, with tax.
pub const PRICES: &CStr = c"SELECT sum(with_tax(price)) FROM parts";

/// The cost of one part with everything in it.
pub const COST: &CStr = c"SELECT cost(id, price) FROM parts WHERE id = ?1";

/// The cost of the parts directly inside one part.
pub const COST_INSIDE: &CStr = c"SELECT sum(quantity * cost(id, price)) FROM parts WHERE whole = ?1";

/// The price of a part by itself, without tax.
pub fn price(id: i64) -> i64 {
    1 + id * 7919 % 1000
}

/// Adds 19 % tax to a price, rounded.
///
/// # Panics
/// If the price is negative.
pub fn with_tax(price: i64) -> i64 {
    assert!(price >= 0, "the price {price} is negative");
    price + (price * 19 + 50) / 100
}

/// The right answers, computed without SQL.
pub struct Answers {
    /// The answer to [`PRICES`].
    pub prices: i64,
    /// The answers to [`COST`], by the part's number.
    pub costs: Vec<i64>,
}

/// Computes the right answers. From the last part to the first, each part adds its cost to its
/// whole.
pub fn answers() -> Answers {
    let mut costs: Vec<i64> = (0..=COUNT as i64).map(|id| with_tax(price(id))).collect();
    let prices = costs[1..].iter().sum();
    for id in (1..=COUNT).rev() {
        costs[id / 2] += (1 + id as i64 % 3) * costs[id];
    }
    Answers { prices, costs }
}
