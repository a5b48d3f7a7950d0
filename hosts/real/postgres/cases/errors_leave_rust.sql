-- ereport skips Rust frames by siglongjmp, ten thousand times: memory stays flat, and later calls
-- are right.
CREATE PROCEDURE leave(times integer) LANGUAGE plpgsql AS $$
BEGIN
    FOR i IN 1..times LOOP
        BEGIN
            PERFORM rust_leave('SELECT 1 / 0');
            ASSERT false, 'came back';
        EXCEPTION WHEN division_by_zero THEN
            NULL;
        END;
    END LOOP;
END $$;
DO $$
DECLARE
    before bigint;
BEGIN
    CALL leave(2000);
    before := resident();
    CALL leave(10000);
    RAISE NOTICE '% KiB more, % calls open', resident() - before, rust_state(0);
    ASSERT resident() - before < 512;
    ASSERT rust_state(0) < 2048;
    ASSERT rust_leave('SELECT 42') = 42 AND rust_query('SELECT 42') = 42 AND rust_nest(20) = 20;
    ASSERT rust_try('SELECT 1 / 0') = 'division by zero';
    ASSERT error_of('SELECT rust_panic(''after'')') = '38000 after';
    -- One of upcall's stacks is kept for the next use.
    ASSERT rust_state(1) <= 1;
    -- The error skips several calls of Rust at once.
    FOR i IN 1..1000 LOOP
        ASSERT rust_try('SELECT rust_leave(''SELECT rust_leave(''''SELECT 1 / 0'''')'')') = 'division by zero';
    END LOOP;
    ASSERT rust_state(0) < 2048;
END $$;
