"""The parser of a compiled program's collectives, on lines as XLA prints them."""

import pytest

from benchmarks.scaling.collectives import axes_of, collectives, launches

MODULE = """HloModule jit_run, is_scheduled=true, num_partitions=8

FileNames
1 "step.py"

%add (a: f32[], b: f32[]) -> f32[] {{
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}}

%inner (p.1: (s32[], f32[8,16])) -> (s32[], f32[8,16]) {{
  %p.1 = (s32[], f32[8,16]{{1,0}}) parameter(0)
  %x.1 = f32[8,16]{{1,0}} get-tuple-element(%p.1), index=1
  {inner}
}}

%body (p: (s32[], f32[8,16], f32[30])) -> (s32[], f32[8,16], f32[30]) {{
  %p = (s32[], f32[8,16]{{1,0}}, f32[30]{{0}}) parameter(0)
  %x = f32[8,16]{{1,0}} get-tuple-element(%p), index=1
  %y = f32[30]{{0}} fusion(%p), kind=kLoop, calls=%add, \
metadata={{op_name="jit(run)/while/body/transpose(jvp())/reduce_sum"}}
  %s = f32[] fusion(%p), kind=kLoop, calls=%add, \
metadata={{op_name="jit(run)/while/body/jvp()/reduce_sum"}}
  {body}
  %loop = (s32[], f32[8,16]{{1,0}}) while(%q), condition=%cond, body=%inner, \
backend_config={{"known_trip_count":{{"n":"28"}}}}
}}

%to_next_row (p.3: (s32[], f32[8,16])) -> (s32[], f32[8,16]) {{
  %p.3 = (s32[], f32[8,16]{{1,0}}) parameter(0)
  %while.2 = (s32[], /*index=1*/f32[8,16]{{1,0}}) while(%p.3), condition=%cond, body=%body, \
control-predecessors={{%p.3, %s}}, metadata={{op_name="jit(run)/while/body/while"}}
  {row}
}}

ENTRY %main (p.2: f32[8,16]) -> f32[8,16] {{
  %p.2 = f32[8,16]{{1,0}} parameter(0)
  %while.1 = (s32[], /*index=1*/f32[8,16]{{1,0}}) while(%p.2), condition=%cond, \
body=%to_next_row, metadata={{op_name="jit(run)/while"}}
  {entry}
}}
"""


def found(body: str = "", inner: str = "", row: str = "", entry: str = "", devices: int = 8):
    return collectives(MODULE.format(body=body, inner=inner, row=row, entry=entry), devices)


def only(line: str, devices: int = 8):
    (one,) = found(body=line, devices=devices)
    return one


def test_a_combined_sum_has_its_arrays_each_with_what_made_it():
    one = only(
        "%all-reduce.24 = (f32[30]{0}, /*index=1*/f32[]) all-reduce(%y, /*index=1*/%s),"
        " channel_id=1, replica_groups=mesh['axis_0'=8,'axis_1'=1] {'axis_0'},"
        " use_global_device_ids=true, to_apply=%add, metadata={op_name="
        '"jit(run)/while/body/(transpose(jvp())/reduce_sum:jvp()/reduce_sum)" stack_frame_id=4}'
    )
    assert (one.kind, one.times, one.in_step) == ("all-reduce", 1, True)
    assert one.groups == (tuple(range(8)),)
    assert [(part.shape, part.bytes) for part in one.parts] == [((30,), 120), ((), 4)]
    assert [part.op_name.split("body/")[1] for part in one.parts] == [
        "transpose(jvp())/reduce_sum",
        "jvp()/reduce_sum",
    ]


def test_a_gather_counts_what_comes_out():
    one = only(
        "%all-gather.1 = f32[8,128]{1,0} all-gather(%x), channel_id=2,"
        " replica_groups=[1,8]<=[8], dimensions={1}, use_global_device_ids=true,"
        ' metadata={op_name="jit(run)/while/body/sharding_constraint"}'
    )
    assert one.parts[0].shape == (8, 128) and one.parts[0].bytes == 4096
    assert one.parts[0].op_name == "jit(run)/while/body/sharding_constraint"


def test_asynchronous_forms_count_once_and_as_the_others():
    lines = (
        "%ag = (f32[8,16]{1,0}, f32[16,16]{1,0}) all-gather-start(%x),"
        " replica_groups={{0,1},{2,3},{4,5},{6,7}}, dimensions={0}\n"
        "  %agd = f32[16,16]{1,0} all-gather-done(%ag)\n"
        "  %ar = f32[30]{0} all-reduce-start(%y), replica_groups={}, to_apply=%add\n"
        "  %ard = f32[30]{0} all-reduce-done(%ar)\n"
        "  %cp = (f32[30]{0}, f32[30]{0}, u32[], u32[]) collective-permute-start(%y),"
        " source_target_pairs={{0,1},{1,0}}\n"
        "  %cpd = f32[30]{0} collective-permute-done(%cp)"
    )
    gather, reduce, permute = found(body=lines)
    assert gather.parts[0].bytes == 16 * 16 * 4 and gather.groups[1] == (2, 3)
    assert reduce.parts[0].bytes == 120 and reduce.groups == (tuple(range(8)),)
    assert len(permute.parts) == 1 and permute.groups == ((0, 1), (1, 0))


def test_a_scattered_sum_counts_what_goes_in():
    one = only(
        "%rs = bf16[2,16]{1,0:T(8,128)} reduce-scatter(%z), replica_groups=[2,4]<=[8],"
        " dimensions={0}, to_apply=%add".replace("%z", "%x")
    )
    assert one.kind == "reduce-scatter" and one.parts[0].bytes == 512
    assert one.groups == ((0, 1, 2, 3), (4, 5, 6, 7))


@pytest.mark.parametrize(
    "printed, groups",
    [
        ("{{0,2},{1,3},{4,6},{5,7}}", ((0, 2), (1, 3), (4, 6), (5, 7))),
        ("[2,4]<=[8]", ((0, 1, 2, 3), (4, 5, 6, 7))),
        ("[2,4]<=[4,2]T(1,0)", ((0, 2, 4, 6), (1, 3, 5, 7))),
        ("mesh['axis_0'=4,'axis_1'=2] {'axis_1'}", ((0, 1), (2, 3), (4, 5), (6, 7))),
        ("mesh['axis_0'=4,'axis_1'=2] {'axis_0'}", ((0, 2, 4, 6), (1, 3, 5, 7))),
        (
            "mesh['axis_0'=2,'axis_1'=1,'axis_2'=4], device_ids=([4,2]T(1,0)) {'axis_0'}",
            ((0, 1), (2, 3), (4, 5), (6, 7)),
        ),
        ("mesh['a'=8] {'a':(1)2}", ((0, 4), (1, 5), (2, 6), (3, 7))),
        ("mesh['a'=8] {'a':(4)2}", ((0, 1), (2, 3), (4, 5), (6, 7))),
        ("mesh['a'=4,'b'=2] {'a','b'}", (tuple(range(8)),)),
    ],
)
def test_groups_in_every_form(printed, groups):
    line = f"%r = f32[30]{{0}} all-reduce(%y), replica_groups={printed}, to_apply=%add"
    assert only(line).groups == groups


def test_loops_of_known_length_multiply_and_what_is_outside_of_the_steps_is_apart():
    line = "%r{} = f32[8,16]{{1,0}} all-reduce({}), replica_groups={{{{0,1,2,3,4,5,6,7}}}}"
    operands = ("%x.1", "%x", "%p.3", "%p.2")
    inner, body, row, entry = (line.format(at, each) for at, each in enumerate(operands, 1))
    told = sorted((each.in_step, each.times) for each in found(body, inner, row, entry))
    assert told == [(False, 1), (False, 1), (True, 1), (True, 28)]


def test_the_axes_of_groups():
    sizes = {"data": 2, "fsdp": 2, "tensor": 2}
    assert axes_of(((0, 4), (1, 5), (2, 6), (3, 7)), sizes) == ("data",)
    assert axes_of(((0, 2, 4, 6), (1, 3, 5, 7)), sizes) == ("data", "fsdp")
    assert axes_of(((0, 1), (2, 3), (4, 5), (6, 7)), sizes) == ("tensor",)
    assert axes_of(((0, 3), (3, 0)), sizes) == ("fsdp", "tensor")
    assert axes_of(((0,), (1,)), sizes) == ()


def test_launches_are_those_of_a_step():
    line = "%r = f32[8,16]{1,0} add(%x.1, %x.1)"
    text = MODULE.format(body="", inner=line, row="", entry="%o = f32[8,16]{1,0} add(%p.2, %p.2)")
    assert launches(text) == 2 + 28  # two fusions in the body, and the loop's
