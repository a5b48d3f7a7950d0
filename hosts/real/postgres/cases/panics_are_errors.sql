-- A panic is an SQL error with its message, and continues at each enclosing downcall.
DO $$
BEGIN
    FOR i IN 1..100 LOOP
        ASSERT error_of(format('SELECT rust_panic(''number %s'')', i)) = format('38000 number %s', i);
    END LOOP;
    ASSERT error_of('SELECT rust_query(''SELECT rust_panic(''''inner'''')'')') = '38000 inner';
    ASSERT rust_query('SELECT 42') = 42 AND rust_state(0) = 0;
END $$;
