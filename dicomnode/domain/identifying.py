"""Attributes whose values say who the patient is: they stay out of what the node stores and logs of its decisions.

Group 0010 of PS3.6, but for what describes a body and names nobody, and of the attributes that PS3.15 Table E.1-1
has removed or replaced those that name a person, a case or an address, or are free text about one. Dates of studies
and the descriptions of studies and series are shown: rules are made of them.
"""

from __future__ import annotations

from collections.abc import Iterable

_OF_THE_PATIENT = """
AdditionalPatientHistory Allergies BranchOfService BreedRegistrationNumber BreedRegistrationSequence
CountryOfResidence EthnicGroup EthnicGroupCodeSequence GroupOfPatientsIdentificationSequence
InsurancePlanIdentification IssuerOfPatientID IssuerOfPatientIDQualifiersSequence LastMenstrualDate MedicalAlerts
MedicalRecordLocator MilitaryRank Occupation OtherPatientIDs OtherPatientIDsSequence OtherPatientNames
PatientAddress PatientBirthDate PatientBirthDateInAlternativeCalendar PatientBirthName PatientBirthTime
PatientComments PatientDeathDateInAlternativeCalendar PatientID PatientInsurancePlanCodeSequence
PatientMotherBirthName PatientName PatientReligiousPreference PatientTelecomInformation PatientTelephoneNumbers
ReferencedPatientPhotoSequence RegionOfResidence ResponsibleOrganization ResponsiblePerson
SourcePatientGroupIdentificationSequence
"""
_OF_THE_CASE = """
AccessionNumber AcquisitionComments AdmissionID AdmittingDiagnosesDescription CommentsOnThePerformedProcedureStep
CurrentPatientLocation FillerOrderNumberImagingServiceRequest FrameComments ImageComments
ImagingServiceRequestComments IssuerOfAdmissionID PatientInstitutionResidence PatientState
PatientTransportArrangements PersonAddress PersonIdentificationCodeSequence PersonTelephoneNumbers
PlacerOrderNumberImagingServiceRequest ReasonForStudy ReasonForTheRequestedProcedure ReasonForVisit
ReferringPhysicianAddress ReferringPhysicianTelephoneNumbers RequestedProcedureComments RequestedProcedureID
ScheduledPatientInstitutionResidence ScheduledProcedureStepID ServiceEpisodeDescription ServiceEpisodeID
SpecialNeeds StudyComments StudyID VisitComments
"""
IDENTIFYING = frozenset(_OF_THE_PATIENT.split()) | frozenset(_OF_THE_CASE.split())


def is_identifying(steps: Iterable[str]) -> bool:
    """Of an attribute by its path, sequences first: what lies in an identifying sequence is identifying too."""
    return not IDENTIFYING.isdisjoint(steps)
