-- SQL → Rust → SPI → Rust → …, fifty levels deep, and then too deep for PostgreSQL. Its error is
-- like any other.
DO $$
DECLARE
    deepest bigint;
BEGIN
    ASSERT rust_nest(50) = 50;
    FOR i IN 1..3 LOOP
        ASSERT error_of('SELECT rust_nest(1000000)') = '54001 stack depth limit exceeded';
        deepest := rust_state(3);
        ASSERT deepest BETWEEN 100 AND 10000, deepest;
        ASSERT rust_nest(50) = 50 AND rust_state(0) = 0;
    END LOOP;
    RAISE NOTICE 'too deep after % levels', deepest;
END $$;
