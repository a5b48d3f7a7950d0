-- Usage: lua5.4 cases.lua DIRECTORY-OF-THE-MODULE CASE
package.cpath = arg[1] .. "/lib?.so"
local crossing = require "crossing"

local STACKS = { "auto", "caller", "pooled" }
local cases = {}

local function raises(expected, ...)
    local worked, message = pcall(...)
    assert(not worked and string.find(tostring(message), expected, 1, true), message)
end

-- Checks what must hold after any abandoned calls: a panic reaches its enclosing downcall only.
local function all_is_right()
    local _, _, _, locals = crossing.counts()
    for _, stack in ipairs(STACKS) do
        local panic, message = crossing.catch(stack, function() crossing.panic(stack, "right") end)
        assert(panic == "right" and message == "right")
        assert(crossing.catch(stack, function() return crossing.pcall(stack, error, "no panic") end) == false)
        raises("nobody's", crossing.panic, stack, "nobody's")
        assert(crossing.doubled(stack, 21) == 42)
    end
    assert(select(4, crossing.counts()) == locals, "a destructor did not run")
end

-- Errors raised by C under a downcall, caught by Lua under the same downcall or further out.
function cases.errors()
    for _, outer in ipairs(STACKS) do
        for _, inner in ipairs(STACKS) do
            local worked, message = crossing.pcall(outer, error, "plain")
            assert(not worked and message == "plain")
            assert(select("#", crossing.pcall(outer, function(...) return ... end, 1, nil, 3)) == 4)
            local table = {}
            worked, message = crossing.pcall(outer, crossing.call, inner, error, table)
            assert(not worked and message == table)
            worked, message = crossing.pcall(outer, crossing.throw, inner, "thrown in Rust")
            assert(not worked and message == "thrown in Rust")
            raises("past both", crossing.call, outer, crossing.call, inner, error, "past both")
            -- Leaves the inner call of an outer call by an error, and continues in the outer call.
            assert(crossing.call(outer, function()
                raises("inner only", crossing.call, inner, error, "inner only")
                return crossing.doubled(inner, 4)
            end) == 8)
            all_is_right()
        end
    end
end

-- Errors skip upcalls and downcalls, a million times in each way. Memory stays flat, and later
-- calls are right.
local function left(times, leave)
    local function round()
        for i = 1, times do
            leave(i)
        end
        all_is_right()
        collectgarbage()
    end
    round()
    local before, _, stacks = crossing.counts()
    round()
    local after, open, stacks_after = crossing.counts()
    assert(after - before < 1024, "KiB more: " .. after - before)
    assert(open < 4096 and stacks < 4096 and stacks_after <= stacks + 64, "not flat")
end

function cases.a_million_errors()
    local skipped = select(4, crossing.counts())
    for _, stack in ipairs(STACKS) do
        left(500000, function() pcall(crossing.call, stack, error, "left") end)
    end
    left(500000, function(i) pcall(crossing.throw, STACKS[i % 3 + 1], "left") end)
    -- The destructors of skipped frames have not run.
    assert(select(4, crossing.counts()) - skipped == 8 * 500000)
end

-- Panics become Lua errors, and continue at their enclosing downcalls.
function cases.panics()
    for _, outer in ipairs(STACKS) do
        for _, inner in ipairs(STACKS) do
            local panic, message = crossing.catch(outer, function() crossing.panic(inner, "both") end)
            assert(panic == "both" and message == "both")
            -- Lua may catch the error. The panic continues all the same.
            panic, message = crossing.catch(outer, function()
                raises("caught in Lua", crossing.panic, inner, "caught in Lua")
                return "went on"
            end)
            assert(panic == "caught in Lua" and message == "went on")
            -- Rust to Lua to Rust to Lua: the panic goes from downcall to downcall, as a Lua error
            -- at each.
            raises("through all", crossing.pcall, outer, crossing.pcall, inner, crossing.panic, outer, "through all")
        end
    end
    for i = 1, 100000 do
        assert(not pcall(crossing.panic, STACKS[i % 3 + 1], "often"))
    end
    all_is_right()
end

-- Yields in Rust, and yields in Lua under Rust code with a continuation. Without one, a yield is
-- Lua's own error.
function cases.yields()
    local function numbers(stack, call)
        return coroutine.wrap(function()
            local sum = 0
            for i = 1, 10 do
                sum = sum + call(stack, i)
            end
            return "sum", sum
        end)
    end
    local ways = {
        crossing.yields,
        function(stack, i) return crossing.call_on(stack, coroutine.yield, i) end,
        function(stack, i) return crossing.call_on(stack, crossing.call_on, stack, crossing.yields, stack, i) end,
    }
    local all = {}
    for _, stack in ipairs(STACKS) do
        for _, way in ipairs(ways) do
            for _ = 1, 20 do
                all[#all + 1] = { numbers = numbers(stack, way), next = 1 }
            end
        end
    end
    -- All of them run at once, in any order.
    math.randomseed(5)
    while #all > 0 do
        local at = math.random(#all)
        local one = all[at]
        local number, sum = one.numbers(one.next - 1)
        if number == "sum" then
            assert(one.next == 11 and sum == 55)
            table.remove(all, at)
        else
            assert(number == one.next)
            one.next = number + 1
        end
    end
    for _, stack in ipairs(STACKS) do
        local refused = coroutine.wrap(function()
            raises("attempt to yield across a C-call boundary", crossing.call, stack, coroutine.yield)
            raises("attempt to yield across a C-call boundary", crossing.call, stack, crossing.yields, stack)
            local worked, message = crossing.pcall(stack, coroutine.yield)
            assert(not worked and string.find(message, "attempt to yield across a C-call boundary", 1, true))
            return "done"
        end)
        assert(refused() == "done")
        raises("attempt to yield from outside a coroutine", crossing.yields, stack)
    end
    local endless = coroutine.wrap(function()
        while true do
            crossing.yields("auto")
            crossing.call_on("pooled", coroutine.yield)
        end
    end)
    left(100000, endless)
end

-- Rust resumes coroutines. They resume others through Rust, and wait.
function cases.coroutines()
    local function nest(stack, depth)
        return coroutine.create(function(n)
            for i = 1, 3 do
                n = coroutine.yield(crossing.doubled(stack, n))
                if depth > 0 then
                    local worked, inner = crossing.resume(stack, nest(stack, depth - 1), i)
                    assert(worked and inner == 2 * i)
                end
            end
            crossing.panic(stack, "at the end")
        end)
    end
    for _, stack in ipairs(STACKS) do
        local suspended = {}
        for i = 1, 30 do
            suspended[i] = nest(stack, i % 8)
        end
        for round = 1, 3 do
            for i = 30, 1, -1 do
                local worked, doubled = crossing.resume(stack, suspended[i], i)
                assert(worked and doubled == 2 * i)
            end
        end
        for i = 1, 30 do
            raises("at the end", crossing.resume, stack, suspended[i], 0)
            assert(coroutine.status(suspended[i]) == "dead")
        end
    end
    all_is_right()
end

-- Fifty Lua threads of this state wait in the middle of Rust functions, and continue in any order.
-- Each has errors and coroutines of its own.
function cases.waits()
    local order, functions, gone_on = {}, {}, {}
    math.randomseed(6)
    for i = 1, 50 do
        table.insert(order, math.random(i), i)
    end
    for i = 1, 50 do
        functions[i] = function()
            local turns = coroutine.wrap(function()
                crossing.turn(order[i])
                coroutine.yield()
                error("after")
            end)
            turns()
            gone_on[order[i]] = #gone_on + 1
            collectgarbage("step", 1000)
            raises("after", turns)
            raises("own", crossing.panic, "auto", "own")
            return i
        end
    end
    -- The panics caught by Lua continue at the downcalls that began the fibers.
    raises("own", crossing.gather, table.unpack(functions))
    for turn = 1, 50 do
        assert(gone_on[turn] == turn)
    end
    local results = {
        crossing.gather(
            function()
                crossing.turn(3)
                return "a"
            end,
            function()
                crossing.turn(1)
                return crossing.doubled("auto", 4)
            end,
            function()
                crossing.turn(2)
                return crossing.call("auto", function() return "c" end)
            end
        ),
    }
    assert(table.concat(results, " ") == "a 8 c")
    all_is_right()
end

-- Errors and yields jump over upcalls and downcalls on fibers' stacks, where Lua stays.
function cases.fibers()
    local functions = {}
    for i = 1, 20 do
        functions[i] = function()
            for _, stack in ipairs(STACKS) do
                -- The abandoned calls on pooled stacks stay until the fiber ends.
                local often = stack == "pooled" and 20 or 300
                local yields = coroutine.wrap(function()
                    for n = 1, often do crossing.yields(stack, n) end
                    return "done"
                end)
                for n = 1, often do
                    raises("left", crossing.call, stack, error, "left")
                    raises("left", crossing.call, stack, crossing.throw, stack, "left")
                    assert(yields() == n)
                end
                assert(yields() == "done")
                assert(crossing.catch(stack, function() crossing.panic(stack, "inside") end) == "inside")
            end
            crossing.turn(21 - i)
            return i
        end
    end
    left(10, function() assert(select("#", crossing.gather(table.unpack(functions))) == 20) end)
end

-- Lua and Rust call each other until Lua reports too many levels.
function cases.depth()
    for _, stack in ipairs(STACKS) do
        for _, call in ipairs { crossing.call, crossing.pcall } do
            local deepest = 0
            local function down(depth)
                deepest = depth
                local results = { call(stack, down, depth + 1) }
                -- `pcall` returns the error.
                return results[#results]
            end
            for _ = 1, 300 do
                local _, message = pcall(down, 1)
                assert(string.find(message, "C stack overflow", 1, true), message)
            end
            assert(deepest > 50 and deepest < 200, deepest)
            all_is_right()
        end
    end
end

-- Finalizers in Rust, and finalizers that panic: in the middle of upcalls, and at the closing of
-- states.
function cases.finalizers()
    local function garbage(finalizer) setmetatable({}, { __gc = finalizer }) end
    for _, stack in ipairs(STACKS) do
        local called = 0
        garbage(function() called = called + crossing.doubled(stack, 1) end)
        assert(crossing.catch(stack, collectgarbage) == false and called == 2)
        -- To Lua, an error in a finalizer is a warning. The panic continues where Rust called C.
        garbage(function() crossing.panic(stack, "in a finalizer") end)
        assert(crossing.catch(stack, collectgarbage) == "in a finalizer")
        garbage(function() crossing.call(stack, error, "in a finalizer") end)
        assert(crossing.catch(stack, collectgarbage) == false)
        all_is_right()
    end
    local finalized, panicked = crossing.states(1, [[
        kept = setmetatable({}, { __gc = crossing.finalized })
        also = setmetatable({}, { __gc = function() crossing.finalized() crossing.panic("pooled", "at the end") end })
        left = coroutine.wrap(function() crossing.yields("auto") end)
        left()
    ]])
    -- That panic continues where Rust closed the state.
    assert(finalized == 2 and panicked == 1)
end

-- States of several threads. Each thread uses its own.
function cases.threads()
    local finalized, panicked = crossing.states(8, [[
        for i = 1, 2000 do
            local garbage = setmetatable({}, { __gc = crossing.finalized })
            assert(crossing.call("pooled", crossing.doubled, "auto", i) == 2 * i)
            assert(not pcall(crossing.call, "auto", error, "left"))
            assert(not pcall(crossing.call, "pooled", crossing.throw, "pooled", "left"))
            assert(crossing.catch("pooled", function() crossing.panic("auto", "caught") end) == "caught")
        end
    ]])
    assert(finalized == 8 * 2000 and panicked == 0)
    all_is_right()
end

cases[arg[2]]()
