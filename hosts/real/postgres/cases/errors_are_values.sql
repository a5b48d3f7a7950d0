-- An error in SPI is caught below Rust. Rust gets it as a value, and may raise it as its own or
-- continue.
DO $$
BEGIN
    ASSERT rust_query('SELECT 6 * 7') = 42;
    ASSERT rust_try('SELECT 1') = '';
    FOR i IN 1..1000 LOOP
        ASSERT rust_try('SELECT 1 / 0') = 'division by zero';
        ASSERT rust_try('nonsense') = 'syntax error at or near "nonsense"';
    END LOOP;
    ASSERT error_of('SELECT rust_query(''SELECT 1 / 0'')') = '22012 division by zero';
    -- The effects of the query are undone, and only those.
    ASSERT rust_query('INSERT INTO numbers VALUES (-1)') = 0;
    ASSERT rust_try('INSERT INTO numbers SELECT -2 / (n - n) FROM numbers') = 'division by zero';
    ASSERT (SELECT count(*) FROM numbers WHERE n < 0) = 1;
    ASSERT rust_state(0) = 0;
END $$;
